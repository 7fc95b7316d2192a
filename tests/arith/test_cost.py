from convatlas.arith.cost import conv_macs, linear_macs


def test_first_convolution_of_resnet50_by_hand():
    # 112 x 112 outputs, 64 channels, each a sum over 7 x 7 x 3 products.
    assert conv_macs(in_channels=3, out_channels=64, kernel_area=49, groups=1, out_pixels=112 * 112) == 118_013_952


def test_depthwise_costs_one_input_channel_each():
    full = conv_macs(in_channels=32, out_channels=32, kernel_area=9, groups=1, out_pixels=100)
    assert conv_macs(in_channels=32, out_channels=32, kernel_area=9, groups=32, out_pixels=100) * 32 == full


def test_linear_is_rows_times_weights():
    assert linear_macs(in_features=400, out_features=120) == 48_000
    assert linear_macs(in_features=4, out_features=5, rows=3) == 60
