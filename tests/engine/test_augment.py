"""Augmentation: checking a config without torch, building, and randomness by seed alone."""

from __future__ import annotations

import collections
import hashlib
import pickle
import subprocess
import sys
import warnings

import jsonschema
import numpy as np
import pytest

from ftengine.augment import build, check, schema
from ftengine.augment_table import ELSEWHERE, REFUSED, table
from ftengine.config import MixConfig
from ftengine.errors import ConfigError, DataError
from ftengine.geometry import Scene

OPTIONS = {
    "CenterCrop": {"height": 20, "width": 24},
    "Crop": {"x_max": 20, "y_max": 20},
    "CropAndPad": {"px": 3},
    "GridElasticDeform": {"num_grid_xy": [2, 2], "magnitude": 3},
    "LongestMaxSize": {"max_size": 20},
    "RandomCrop": {"height": 20, "width": 24},
    "RandomResizedCrop": {"size": [20, 24]},
    "RandomSizedCrop": {"min_max_height": [10, 20], "size": [20, 24]},
    "Resize": {"height": 20, "width": 24},
    "SmallestMaxSize": {"max_size": 20},
    **{name: {"transforms": ["GaussNoise", "D4"]} for name in ("OneOf", "RandomOrder", "Sequential", "SomeOf")},
}
"""What transforms that cannot do without options need."""

COMMON = [
    "HorizontalFlip",
    "VerticalFlip",
    "RandomRotate90",
    {"name": "Rotate", "limit": 30},
    {"name": "Affine", "scale": [0.8, 1.2], "shear": 10},
    {"name": "RandomResizedCrop", "size": [24, 24]},
    "RandomBrightnessContrast",
    "ColorJitter",
    "HueSaturationValue",
    "GaussNoise",
    "GaussianBlur",
    "MotionBlur",
    "CoarseDropout",
    "ElasticTransform",
    "ImageCompression",
    "ToGray",
    {"name": "OneOf", "transforms": ["ISONoise", "MultiplicativeNoise", {"name": "Sequential", "transforms": ["D4"]}]},
]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)


def transform(name):
    return {"name": name, **OPTIONS.get(name, {}), "p": 1.0}


# --- checking --------------------------------------------------------------------------------------------------


def test_good_entries_have_no_problems():
    assert check([]) == []
    assert check(COMMON) == []
    assert (
        check([{"name": "Affine", "translate_percent": {"x": [-0.1, 0.1]}, "border_mode": 4, "fill": (0, 0, 0)}]) == []
    )
    assert check([{"name": "SomeOf", "n": 3, "replace": True, "transforms": ["D4", "Blur"]}]) == []


@pytest.mark.parametrize(
    ("entry", "place", "message"),
    [
        ("HorizontalFlop", "[0]", "unknown augmentation 'HorizontalFlop'; did you mean 'HorizontalFlip'?"),
        ({"name": "Rotate", "limits": 3}, "[0].limits", "unknown option of Rotate 'limits'; did you mean 'limit'?"),
        ({"name": "HorizontalFlip", "p": 1.5}, "[0].p", "expected a number ≥ 0 and ≤ 1; got 1.5"),
        ({"name": "HorizontalFlip", "p": True}, "[0].p", "got True"),
        ({"name": "HorizontalFlip", "p": "often"}, "[0].p", "got 'often'"),
        ({"name": "HorizontalFlip", "p": float("nan")}, "[0].p", "got nan"),
        ({"name": "Rotate", "limit": [1, 2, 3]}, "[0].limit", "expected a number or a list of 2, each a number; got"),
        ({"name": "Downscale", "scale_range": [0, 2]}, "[0].scale_range", "each a number ≥ 0 and ≤ 1; got [0, 2]"),
        ({"name": "Resize", "height": 2.5, "width": 8}, "[0].height", "expected an integer ≥ 1; got 2.5"),
        ({"name": "Affine", "interpolation": 9}, "[0].interpolation", "expected one of 0, 1, 2, 3, 4; got 9"),
        ({"name": "Affine", "keep_ratio": 1}, "[0].keep_ratio", "expected true or false"),
        ({"name": "RandomCrop", "height": 4}, "[0]", "RandomCrop needs `width`"),
        ({"name": "ToGray", "num_output_channels": 1}, "[0].num_output_channels", "expected 3; got 1"),
        ("Normalize", "[0]", "Normalize cannot be used: images stay uint8"),
        ("RandomErasing", "[0]", "unknown augmentation 'RandomErasing'; use Erasing"),
        ("random_erasing", "[0]", "unknown augmentation 'random_erasing'; use Erasing"),
        ("Cutout", "[0]", "unknown augmentation 'Cutout'; use CoarseDropout"),
        ("MixUp", "[0]", "unknown augmentation 'MixUp'; images of a batch are mixed by the config's section `mix`"),
        ({"name": "Mixup", "alpha": 0.2}, "[0]", "section `mix`: {mixup: 0.2}"),
        ("CutMix", "[0]", "section `mix`: {cutmix: 1.0}"),
        ("RandomCutMix", "[0]", "section `mix`: {cutmix: 1.0}"),
        ("Lambda", "[0]", "needs a Python function"),
        ("OneOf", "[0]", "OneOf needs `transforms`"),
        ({"name": "OneOf", "transforms": []}, "[0].transforms", "expected a list of at least 1; got []"),
        ({"name": "OneOf", "transforms": ["Blur", "Blurr"]}, "[0].transforms[1]", "did you mean 'Blur'?"),
        ({"name": "SomeOf", "n": 2, "transforms": ["Blur"]}, "[0].n", "SomeOf of 2 has only 1 transforms"),
        ({"p": 0.5}, "[0]", "expected a transform's name, or a mapping with `name`"),
        (3, "[0]", "got 3"),
    ],
)
def test_mistakes_have_their_place_and_the_nearest_choice(entry, place, message):
    [(found, text)] = check([entry])
    assert found == place
    assert message in text


def test_what_stands_in_for_other_libraries_names_is_there():
    named = {word for hint in ELSEWHERE.values() for word in hint.split() if word[0].isupper()}
    assert named == {"Erasing", "CoarseDropout"}
    assert named <= set(table())
    assert {name for hint in ELSEWHERE.values() for name in MixConfig.model_fields if f"{{{name}:" in hint} == {
        "mixup",
        "cutmix",
    }


def test_all_mistakes_are_found_together():
    inner = {"name": "Sequential", "transforms": [{"name": "Blur", "q": 1}]}
    found = check(["Flop", "D4", {"name": "OneOf", "p": 2, "transforms": [inner, "Normalise"]}])
    assert [place for place, _ in found] == [
        "[0]",
        "[2].p",
        "[2].transforms[0].transforms[0].q",
        "[2].transforms[1]",
    ]


def test_checking_imports_nothing_heavy():
    code = (
        "import sys; from ftengine.augment import check, schema; check(['HorizontalFlip', 'x']); schema(); "
        "print([name for name in ('torch', 'albumentations', 'cv2', 'numpy') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_schema_agrees_with_check():
    validator = jsonschema.Draft202012Validator(schema())
    validator.check_schema(schema())
    good = [COMMON, ["Blur", transform("RandomCrop")], []]
    bad = [["Blurr"], ["RandomCrop"], [{"name": "Blur", "q": 1}], [{"name": "Blur", "p": 2}], [{"p": 1}]]
    bad += [[{"name": "OneOf", "transforms": ["Blurr"]}], [{"name": "Crop", "x_min": -1}]]
    for entries in good:
        assert check(entries) == []
        assert validator.is_valid(entries)
    for entries in bad:
        assert check(entries)
        assert not validator.is_valid(entries)


# --- building --------------------------------------------------------------------------------------------------


def test_build_reports_what_check_finds_with_its_place():
    with pytest.raises(ConfigError) as caught:
        build(["Blurr", {"name": "D4", "p": 3}], "data.augment")
    assert [problem.path for problem in caught.value.problems] == ["data.augment[0]", "data.augment[1].p"]


def test_build_reports_what_only_constructors_know():
    entries = ["LongestMaxSize", {"name": "OneOf", "transforms": [{"name": "CropAndPad", "px": 1, "percent": 0.1}]}]
    assert check(entries) == []
    with pytest.raises(ConfigError) as caught:
        build(entries)
    first, second = caught.value.problems
    assert (first.path, first.message) == (
        "augment[0]",
        "LongestMaxSize: Either max_size or max_size_hw must be specified",
    )
    assert second.path == "augment[1].transforms[0]"
    assert "px" in second.message
    assert "\n" not in str(first) + str(second)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", sorted(name for name in table() if not table()[name]["needs"]))
def test_every_transform_runs_and_depends_on_the_seed_alone(name, image):
    original = image.copy()
    augment, again = build([transform(name)]), build([transform(name)])
    forward = [augment(Scene(image), seed) for seed in range(3)]
    backward = [again(Scene(image), seed) for seed in reversed(range(3))][::-1]
    for scene, other_scene in zip(forward, backward, strict=True):
        assert (scene.boxes, scene.mask, scene.kept) == (None, None, None)
        one, other = scene.image, other_scene.image
        assert one.dtype == np.uint8
        assert one.ndim == 3
        assert one.shape[2] == 3
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(image, original)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_every_refused_transform_is_refused_by_build(name):
    with pytest.raises(ConfigError, match="cannot be used"):
        build([name])


# --- randomness ------------------------------------------------------------------------------------------------


def digest(augment, image, seeds):
    return {seed: hashlib.sha256(augment(Scene(image), seed).image.tobytes()).hexdigest() for seed in seeds}


def test_a_pipeline_is_a_pure_function_of_image_and_seed(image):
    augment = build(COMMON)
    forward = digest(augment, image, range(40))
    shuffled = np.random.default_rng(1).permutation(40).tolist()
    np.random.seed(3)
    assert digest(augment, image, shuffled) == forward
    assert digest(pickle.loads(pickle.dumps(augment)), image, range(40)) == forward
    assert len(set(forward.values())) == 40


@pytest.mark.slow
def test_another_process_gives_the_same(image, tmp_path):
    np.save(tmp_path / "image.npy", image)
    code = (
        "import hashlib, numpy as np; from ftengine.augment import build; from ftengine.geometry import Scene; "
        f"augment = build({COMMON!r}); image = np.load({str(tmp_path / 'image.npy')!r}); "
        "print([hashlib.sha256(augment(Scene(image), seed).image.tobytes()).hexdigest() for seed in (7, 3)])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    expected = digest(build(COMMON), image, (7, 3))
    assert shown.strip() == str([expected[7], expected[3]])


def test_transforms_draw_independently_of_each_other():
    """Two flips with p = 0.5: none, either and both are equally frequent over seeds."""
    corner = np.zeros((2, 2, 3), np.uint8)
    corner[0, 0] = 255
    augment = build(["HorizontalFlip", "VerticalFlip"])
    counts = collections.Counter(int(augment(Scene(corner), seed).image[..., 0].argmax()) for seed in range(1000))
    assert set(counts) == {0, 1, 2, 3}
    assert min(counts.values()) > 190  # of 250, deviation 14


def test_no_transforms_leave_the_image(image):
    np.testing.assert_array_equal(build([])(Scene(image), 5).image, image)


# --- failures on an image --------------------------------------------------------------------------------------


def test_an_image_too_small_for_a_crop_names_the_entry(image):
    augment = build(["HorizontalFlip", {"name": "RandomCrop", "height": 64, "width": 8}], "augment")
    with pytest.raises(DataError, match=r"^augment\[1\]: RandomCrop failed on an image of 32×40×3: .*"):
        augment(Scene(image), 0)


@pytest.mark.parametrize("wrong", [lambda image: image[..., :1], lambda image: image.astype(np.float32)])
def test_other_channels_or_types_name_the_entry(image, wrong, monkeypatch):
    import albumentations

    monkeypatch.setattr(albumentations.Transpose, "apply", lambda self, img, **params: wrong(img))
    augment = build(["HorizontalFlip", {"name": "Transpose", "p": 1}])
    with pytest.raises(DataError, match=r"^augment\[1\]: Transpose made (uint8 32×40×1|float32 32×40×3) of uint8"):
        augment(Scene(image), 0)


def test_building_a_good_pipeline_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(COMMON)


def test_erasing_is_random_erasing():
    """One rectangle of 2 to 33 % of the image, with sides of a ratio from 0.3 to 3.3, in the share p of images."""
    image = np.full((60, 80, 3), 200, np.uint8)
    augment = build([{"name": "Erasing", "p": 0.5}])
    erased = 0
    for seed in range(200):
        gone = (augment(Scene(image), seed).image == 0).all(axis=-1)
        if not gone.any():
            continue
        erased += 1
        rows, columns = np.nonzero(gone.any(axis=1))[0], np.nonzero(gone.any(axis=0))[0]
        height, width = len(rows), len(columns)
        assert gone.sum() == height * width == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert 0.015 < gone.mean() < 0.34
        assert 0.28 < height / width < 3.6
    assert 75 < erased < 125
