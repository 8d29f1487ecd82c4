from browser import ROOT

from charlm import installation


def test_in_a_clone_the_training_package_and_the_models_lie_beside_charlm():
    assert installation.training_package() == "train"
    assert installation.bundled_models() == ROOT / "weights"


def test_an_installed_package_has_its_models_inside(monkeypatch, tmp_path):
    (tmp_path / "charlm" / "weights").mkdir(parents=True)
    monkeypatch.setattr(installation, "PACKAGE", tmp_path / "charlm")
    assert installation.bundled_models() == tmp_path / "charlm" / "weights"
