"""Pickles that would run code, or worse, if anything here unpickled them. Each tries to make the file `marker` where it runs."""

import io
import pickle
import struct
import tarfile
import zipfile

MARK = b"touch marker"


def text(value):
    """A string on the pickle machine's stack."""
    value = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(value)) + value


def named(module, name):
    """A global on the stack, by its text form."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def call(module, name, *arguments):
    """A whole pickle that calls something."""
    return b"\x80\x02" + called(module, name, *arguments) + b"."


def called(module, name, *arguments):
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def stacked(module, name, *arguments):
    """The same by STACK_GLOBAL of protocol 4."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93(" + b"".join(arguments) + b"tR."


CODE = "open('marker', 'w')"
SHELL = text(MARK)
CALLS = {
    "os.system": call("os", "system", SHELL),
    "posix.system": call("posix", "system", SHELL),
    "os.popen": call("os", "popen", SHELL),
    "os.execvp": call("os", "execvp", text("touch"), b"(" + text("touch") + text("marker") + b"l"),
    "builtins.eval": call("builtins", "eval", text(CODE)),
    "builtins.exec": call("builtins", "exec", text(CODE)),
    "__builtin__.eval": call("__builtin__", "eval", text(CODE)),
    "builtins.open": call("builtins", "open", text("marker"), text("w")),
    "io.open": call("io", "open", text("marker"), text("w")),
    "pathlib.Path.touch": call("pathlib", "Path.touch", called("pathlib", "Path", text("marker"))),
    "subprocess.Popen": call("subprocess", "Popen", b"(" + text("touch") + text("marker") + b"l"),
    "subprocess.getoutput": call("subprocess", "getoutput", SHELL),
    "pty.spawn": call("pty", "spawn", b"(" + text("touch") + text("marker") + b"l"),
    "runpy.run_path": call("runpy", "run_path", text("evil.py")),
    "timeit.timeit": call("timeit", "timeit", text(CODE)),
    "cProfile.run": call("cProfile", "run", text(CODE)),
    "code.interact": call("code", "InteractiveInterpreter"),
    "importlib.import_module": call("importlib", "import_module", text("evil")),
    "webbrowser.open": call("webbrowser", "open", text("file:///etc/passwd")),
    "shutil.rmtree": call("shutil", "rmtree", text(".")),
    "ctypes.CDLL": call("ctypes", "CDLL", text("./evil.so")),
    "operator.attrgetter": call("operator", "attrgetter", text("system")),
    "functools.partial": call("functools", "partial", named("os", "system"), SHELL),
    "builtins.getattr": call("builtins", "getattr", named("os", "path"), text("os")),
    "builtins.__import__": call("builtins", "__import__", text("evil")),
    "types.FunctionType": call("types", "FunctionType", b"N", b"}"),
    "marshal.loads": call("marshal", "loads", b"C\x04evil"),
    "pickle.loads": call("pickle", "loads", b"C\x04evil"),
    "torch.load": call("torch", "load", text("evil.pt")),
    "torch.hub.load": call("torch.hub", "load", text("evil/evil"), text("evil")),
    "torch.jit.load": call("torch.jit", "load", text("evil.pt")),
    "torch.serialization.load": call("torch.serialization", "load", text("evil.pt")),
    "torch.utils.model_zoo": call("torch.utils.model_zoo", "load_url", text("http://127.0.0.1/evil")),
    "torch.storage._load_from_bytes": call("torch.storage", "_load_from_bytes", b"C\x04evil"),
    "torch._utils._rebuild_parameter": call("torch._utils", "_rebuild_parameter", b"N", b"\x88", b"}"),
    "torch.package": call("torch.package", "PackageImporter", text("evil.pt")),
    "numpy.load": call("numpy", "load", text("evil.npy")),
    "numpy runstring": call("numpy.testing._private.utils", "runstring", text(CODE), b"}"),
    "numpy.f2py": call("numpy.f2py.crackfortran", "getlincoef", text(CODE), b"}"),
    "safetensors then eval": b"\x80\x02(" + text("w") + called("builtins", "eval", text(CODE)) + b"d.",
}
TRICKS = {
    "by STACK_GLOBAL": stacked("os", "system", SHELL),
    "by STACK_GLOBAL of a dotted name": stacked("builtins", "open.__self__.eval", text(CODE)),
    "by STACK_GLOBAL with names from the memo": (
        b"\x80\x04" + text("system") + b"q\x000" + text("os") + b"h\x00\x93(" + SHELL + b"tR."
    ),
    "with the memo written over": b"\x80\x02" + text("os") + b"q\x00" + named("os", "system") + b"q\x000h\x00(" + SHELL + b"tR.",
    "by INST": b"(" + SHELL + b"ios\nsystem\n.",
    "by OBJ": b"(" + named("os", "system") + SHELL + b"o.",
    "by NEWOBJ": b"\x80\x02" + named("subprocess", "Popen") + b"(" + text("touch") + b"t\x81.",
    "by NEWOBJ_EX": b"\x80\x04" + named("subprocess", "Popen") + b"(" + text("touch") + b"t}\x92.",
    "by BUILD, with a state that is a function": (
        b"\x80\x02"
        + named("collections", "OrderedDict")
        + b")R}"
        + text("__setstate__")
        + named("os", "system")
        + b"sb"
        + SHELL
        + b"b."
    ),
    "by EXT1": b"\x80\x02\x82\x01.",
    "by a persistent name": b"\x80\x02" + text("evil") + b"Q.",
    "by a persistent line": b"Pevil\n.",
    "torn after the payload": b"\x80\x02" + called("os", "system", SHELL) + b"0" + text("w")[:3],
    "before the tensors": b"\x80\x02" + called("os", "system", SHELL) + b"0}.",
    "a name with a line break": b"\x80\x04" + text("os\nsystem") + text("x") + b"\x93(" + SHELL + b"tR.",
    "a frame that lies": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + called("os", "system", SHELL) + b".",
    "two pickles in a row": pickle.dumps({}) + call("os", "system", SHELL),
    "a great nest": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
    "a billion laughs": b"\x80\x02"
    + text("x" * 64)
    + b"q\x00"
    + b"".join(b"(h\x00h\x00h\x00h\x00l" + b"q\x00" for _ in range(200))
    + b".",
}
PAYLOADS = {**CALLS, **TRICKS}
"""By name, each a pickle."""


def in_a_zip(payload, *, name="archive/data.pkl", second=None, packed=False):
    """As torch has saved since 1.6: a zip that holds the pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr(name, payload)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
        if second is not None:
            archive.writestr(*second)
    return buffer.getvalue()


def in_an_old_file(payload):
    """As torch saved before: magic number, protocol, and system info before it."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(each, protocol=2) for each in head) + payload


def in_a_tar(payload):
    """As torch saved at first."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            archive.addfile(info, io.BytesIO(payload))
    return buffer.getvalue()


FORMS = {"bare": bytes, "in a zip": in_a_zip, "in an old file": in_an_old_file, "in a tar": in_a_tar}
"""How a pickle comes."""
