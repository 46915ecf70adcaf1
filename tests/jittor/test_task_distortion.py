from distortion_training import check_resumption


def test_resumption(tmp_path):
    check_resumption("jittor", tmp_path)
