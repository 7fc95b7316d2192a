"""The report of a study: one page, one table, one short text, from its findings and its run folders alone."""

from convatlas.report.study.markdown import study_markdown
from convatlas.report.study.page import study_page
from convatlas.report.study.table import study_csv

__all__ = ["study_csv", "study_markdown", "study_page"]
