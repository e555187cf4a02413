"""A family is checked before it is trained: what is missing is named with its file and the way out."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import genlab.models
import genlab.recipes
from genlab.core.errors import ConfigError
from genlab.models.model import model_type
from genlab.recipes.recipe import DomainInfo, recipe_type
from genlab.training.plan import build_on_meta
from tests.training.test_toy_family import FAMILIES

DOMAINS = {"images": DomainInfo(100, (28, 28, 1), ())}
OPERATIONS = '    operations: ClassVar[Mapping[str, type]] = {"reconstruct": NoOptions}'
OWN_OPTIONS = '__import__("dataclasses").make_dataclass("Own", [("{}", int{})])}}'
AddFamily = Callable[[str, str, str], None]


@pytest.fixture
def add_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AddFamily]:
    """Add the toy autoencoder to genlab: ``add_family(file, old, new)``, with a text of one of its files replaced."""
    packages = {"model": genlab.models, "recipe": genlab.recipes}

    def add(file: str, old: str, new: str) -> None:
        for part, package in packages.items():
            text = (FAMILIES / "toyae" / f"{part}.py").read_text()
            if part == file:
                assert old in text
                text = text.replace(old, new)
            (tmp_path / part).mkdir()
            (tmp_path / part / "toyae.py").write_text(text)
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / part)])
        importlib.invalidate_caches()

    yield add
    for package in packages.values():
        sys.modules.pop(f"{package.__name__}.toyae", None)
        vars(package).pop("toyae", None)


def test_a_whole_family_passes(add_family: AddFamily) -> None:
    add_family("model", "", "")
    recipe = recipe_type("toyae")
    built = build_on_meta("toyae", recipe.config_type(), DOMAINS)
    assert isinstance(built.model(), model_type("toyae"))
    with pytest.raises(ConfigError, match=r"data\.images: model\.latent_dim = 16: an image has 9 values"):
        build_on_meta("toyae", recipe.config_type(), {"images": DomainInfo(100, (3, 3, 1), ())})


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("model", "MODEL = ToyAE", "", "genlab/models/toyae.py defines no MODEL; end it with MODEL ="),
        ("recipe", "RECIPE = ToyAERecipe", "", "genlab/recipes/toyae.py defines no RECIPE; end it with RECIPE ="),
        ("model", "MODEL = ToyAE", "MODEL = 3", "genlab/models/toyae.py: MODEL must be a class derived from genlab.m"),
        ("recipe", "RECIPE = ToyAER", "RECIPE = ToyAEConfig  # ", "toyae.py: RECIPE must be a class derived from genl"),
        ("recipe", "def figures", "def pictures", "recipes/toyae.py: RECIPE: ToyAERecipe does not define figures"),
        ("recipe", "config_type = ToyAEConfig", "", "config_type of ToyAERecipe must be a dataclass with fields run"),
        (
            "recipe",
            "    model: ToyAEArchitecture = ",
            "    net: ToyAEArchitecture = ",
            "with fields run, data, model, ",
        ),
        ("model", '    family = "toyae"', "", "genlab/models/toyae.py: ToyAE needs family = 'toyae', the name of its"),
        ("model", '    family = "toyae"', '    family = "vae"', "ToyAE needs family = 'toyae', the name of its module"),
        ("model", "    Architecture = ", "    kind = ", "toyae.py: ToyAE needs Architecture, the dataclass of its val"),
        ("model", '{"reconstruct": NoOptions}', '("reconstruct",)', r"with names out of: sample, .* it is \('recons"),
        (
            "model",
            '{"reconstruct": NoOptions}',
            '{"compress": NoOptions}',
            "with names out of: sample, .* it is {'compress'",
        ),
        ("model", OPERATIONS, "", "a dictionary with names out of: sample, translate, .* it is None"),
        ("model", "def reconstruct", "def rebuild", r"needs a method reconstruct\(self, pixels, label, options\)"),
        ("model", ", options: Any = None", "", r"needs a method reconstruct\(self, pixels, label, options\)"),
        ("model", ": NoOptions}", ": 3}", "'reconstruct', whose options must be a dataclass; they are 3"),
        (
            "model",
            '{"reconstruct": NoOptions}',
            '{"interpolate": NoOptions}',
            "derived from .*model.InterpolationOptions",
        ),
        (
            "model",
            "NoOptions}",
            OWN_OPTIONS.format("label", ", 0"),
            "include 'label', which commands call something el",
        ),
        ("model", "NoOptions}", OWN_OPTIONS.format("width", ""), "whose options need a default for 'width'"),
    ],
)
def test_a_class_that_lacks_something_is_refused(
    add_family: AddFamily, file: str, old: str, new: str, message: str
) -> None:
    add_family(file, old, new)
    with pytest.raises(ConfigError, match=message) as raised:
        recipe_type("toyae")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('("autoencoder",)', '("decoder",)', r"toyae.py: ToyAERecipe needs averaged, .*\(autoencoder\); it is \('deco"),
        (
            '("autoencoder",)',
            '"autoencoder"',
            r"averaged, a tuple of names out of self.networks .* it is 'autoencoder'",
        ),
        ("self.networks =", "self.parts =", "ToyAERecipe needs self.networks, an nn.ModuleDict of the networks that"),
        (
            'Phase("autoencoder", "autoencoder", ',
            'Phase("autoencoder", "decoder", ',
            "no network 'decoder'; self.netwo",
        ),
        ("self._loss),)", "self._loss, reads=('encoder',)),)", "phase 'autoencoder': no network 'encoder'; self.netwo"),
        ("self._loss),)", "self._loss, every=0),)", "phase 'autoencoder': every = 0; must be at least 1"),
        (
            "self._loss),)",
            "self._loss),) * 2",
            "one phase, each with a name of its own; got .'autoencoder', 'a",
        ),
        (
            '{"autoencoder": self.autoencoder}',
            '{"autoencoder": self.autoencoder, "still": nn.Linear(1, 1)}',
            "no phase moves still; keep a network that is not trained outside of self.networks",
        ),
        (
            '{"autoencoder": self.autoencoder}',
            '{"autoencoder": self.autoencoder, "other": nn.Sequential(self.autoencoder)}',
            r"autoencoder and other share 0\.\S+, and each network has an optimiser of its own; make one",
        ),
        (
            '{"autoencoder": self.autoencoder}',
            '{"autoencoder": self.autoencoder.requires_grad_(False)}',
            r"autoencoder\.\S+ is not trained \(requires_grad is off\); keep it in a buffer, or outside",
        ),
        ("averaged =", "group, averaged = 0,", "group = 0; must be at least 1"),
        ("return self.autoencoder\n", "return self.networks\n", "model.. must return the MODEL of genlab/models/toyae"),
    ],
)
def test_networks_that_do_not_fit_are_refused(add_family: AddFamily, old: str, new: str, message: str) -> None:
    add_family("recipe", old, new)
    with pytest.raises(ConfigError, match=message):
        build_on_meta("toyae", recipe_type("toyae").config_type(), DOMAINS)


def test_no_network_need_be_averaged(add_family: AddFamily) -> None:
    add_family("recipe", '    averaged = ("autoencoder",)\n', "")
    assert build_on_meta("toyae", recipe_type("toyae").config_type(), DOMAINS).averaged == ()
