"""Every line of docs/security.md, with canaries: what must not happen would leave a trace."""

import ast
import copy
import hashlib
import importlib
import io
import json
import os
import pickle
import re
import shutil
import socket
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageFile

from drawing import Plain
from ftengine.errors import DataError, WeightsError
from ftengine.gallery import Gallery
from ftengine.images import FORMATS, read_image, read_mask, verify_images
from ftengine.predict_files import PredictionFiles
from ftengine.protocols import Dataset, DatasetContext
from ftengine.weights import read_tensors

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "engine").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def test_every_line_of_the_page_is_held_by_a_test():
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    promises = page.partition("## Weights")[2].partition("## What is not promised")[0]
    held = re.findall(r"^<!-- held by: (\w+) -->\n- ", promises, re.MULTILINE)
    assert len(held) == len(re.findall(r"^- ", promises, re.MULTILINE))
    own = {name for name in globals() if name.startswith("test_")}
    assert {*held, "test_every_line_of_the_page_is_held_by_a_test"} == own


# --- what the source does not have -----------------------------------------------------------------------------------

FORBIDDEN = {
    *("pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "codeop", "runpy"),
    *("zipfile", "tarfile", "zipimport", "xmlrpc", "telnetlib", "ftplib", "http", "socketserver"),
}


def calls(tree):
    """(dotted name, call) of every call of a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call, name):
    return next((ast.unparse(given.value) for given in call.keywords if given.arg == name), None)


def offences(file, tree):
    """What a source file has that could run or unpack data."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        yield from (f"imports {name}" for name in names if name.partition(".")[0] in FORBIDDEN)
    for name, call in calls(tree):
        if name in ("eval", "exec", "compile", "__import__"):
            yield name
        imports_by_name = name.endswith(("import_module", "find_spec"))
        if imports_by_name and file != "engine/ftengine/cli.py" and not file.startswith("engine/ftengine/host"):
            yield name  # elsewhere than for plugins, and for ftengine's own commands
        if name == "torch.load" and keyword(call, "weights_only") != "True":
            yield "torch.load with pickle"
        if name.startswith(("torch.jit.", "torch.package", "torch.hub.load", "torch.export.load")):
            yield name
        if name in ("np.load", "numpy.load", "np.fromfile") and keyword(call, "allow_pickle") != "False":
            yield name
        if (
            name.startswith("yaml.")
            and "load" in name
            and not (name == "yaml.safe_load" or (name == "yaml.load" and keyword(call, "Loader") == "Loader"))
        ):
            yield f"{name} with {keyword(call, 'Loader')}"
        if name in ("socket.socket", "socket.create_connection", "socket.create_server"):
            yield name
        if name in ("os.system", "os.popen", "shutil.unpack_archive") or name.endswith((".extractall", ".extract")):
            yield name
        if keyword(call, "shell") not in (None, "False"):
            yield f"{name} with a shell"
        if name.startswith("Image.open") and keyword(call, "formats") != "FORMATS":
            yield "Image.open of any format"


ALLOWED = {
    # Asks whether a name of one part is taken; that imports nothing.
    "engine/ftengine/scaffold/naming.py": {"importlib.util.find_spec"},
    # For plugin authors: the source of an installed plugin, and copies made and read back in memory.
    "engine/ftengine/testing/components.py": {"importlib.util.find_spec"},
    "engine/ftengine/testing/same.py": {"imports pickle"},
}


def test_nothing_that_can_run_code_is_imported():
    assert len(TREES) > 100
    found = {file: set(offences(file, tree)) - ALLOWED.get(file, set()) for file, tree in TREES.items()}
    assert {file: names for file, names in found.items() if names} == {}
    loaders = [
        ast.unparse(node.bases[0])
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == "Loader"
    ]
    assert loaders == ["yaml.SafeLoader"] * len(loaders)
    assert loaders
    for sample in (  # the search finds what it looks for
        "import pickle",
        "from tarfile import open",
        "eval('1')",
        "importlib.import_module(name)",
        "torch.load(file)",
        "torch.load(file, weights_only=safe)",
        "np.load(file)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "archive.extractall(folder)",
        "subprocess.run(text, shell=True)",
        "Image.open(file)",
        "socket.create_connection(address)",
    ):
        assert list(offences("plugins/x.py", ast.parse(sample))), sample


def test_objects_travel_in_one_module_only():
    """torch.distributed pickles objects: only ftengine.dist asks it to; and no other module opens a connection."""
    users = {
        file
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and re.search(r"_object(_list)?$", node.attr)
    }
    assert users <= {"engine/ftengine/dist.py"}
    remote = ("torch.distributed.rpc", "multiprocessing.connection", "multiprocessing.managers", "urllib.request")
    imported = {
        name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert not imported & set(remote)


# --- weights ---------------------------------------------------------------------------------------------------------


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


def zipped(file, canary):
    torch.save({"state_dict": {"w": torch.zeros(2)}, "x": Payload(canary)}, file)


def legacy(file, canary):
    torch.save({"w": torch.zeros(2), "x": Payload(canary)}, file, _use_new_zipfile_serialization=False)


def bare(file, canary):
    file.write_bytes(pickle.dumps(Payload(canary), protocol=2))


def tar(file, canary):
    """As torch wrote them before version 0.1.10: a tar with pickles in it, and here with a path that leads out."""
    with tarfile.open(file, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors", f"../../{canary.name}"):
            content = pickle.dumps(Payload(canary), protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def script(file, canary):
    """A program of TorchScript, which torch.load of old would have started."""

    class Module(torch.nn.Module):
        def forward(self, x):
            return x

    torch.jit.script(Module()).save(str(file))


def through_getattr(file, canary):
    """By a function that is allowed nowhere: builtins' getattr."""
    code = b"\x80\x02cbuiltins\ngetattr\ncos\npath\nX\x04\x00\x00\x00join\x86R."
    file.write_bytes(code)


WRITERS = [zipped, legacy, bare, tar, script, through_getattr]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_malicious_pth_is_refused(tmp_path, monkeypatch, write):
    canary, file = tmp_path / "canary", tmp_path / "in" / "weights.pth"
    file.parent.mkdir()
    write(file, canary)
    for force in ("", "1"):
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
        with pytest.raises(WeightsError, match=re.escape(str(file))):
            read_tensors(file)
    assert sorted(tmp_path.rglob("*")) == [file.parent, file]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("write", [zipped, legacy, bare], ids=lambda write: write.__name__)
def test_a_pickle_by_another_name_is_refused(cli, third_party, config_file, tmp_path, write, suffix):
    """By the whole command, too, and nothing is trained."""
    canary, file = tmp_path / "canary", tmp_path / f"weights.{suffix}"
    write(file, canary)
    with pytest.raises(WeightsError, match=re.escape(str(file))):
        read_tensors(file)
    if suffix == "safetensors":
        config = config_file({"backbone": {"weights": str(file)}})
        result = cli("run", "--config", config, "--output", tmp_path / "run")
        assert result.exit_code == 1
        assert str(file) in result.stderr
        assert not (tmp_path / "run").exists()
    assert not canary.exists()


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(runs):
    return runs({"train": {"epochs": 1}})


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a run directory, which may be changed."""
    made = copy.copy(finished)
    made.directory = tmp_path / "folder" / "run"
    shutil.copytree(finished.directory, made.directory)
    return made


def signed(checkpoint):
    """Give every file of a checkpoint the hash that it has now."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("place", ["../../../elsewhere", "{elsewhere}", "..", "../checkpoints", "", 7, None, ["x"]])
def test_a_pointer_leads_nowhere_else(cli, run, tmp_path, place):
    """There is a whole checkpoint elsewhere, of which nothing must be read."""
    shutil.copytree(run.checkpoint(), tmp_path / "elsewhere")
    name = place.format(elsewhere=tmp_path / "elsewhere") if isinstance(place, str) else place
    shutil.rmtree(run.checkpoint())
    for pointer in ("last", "best"):
        (run.directory / "checkpoints" / f"{pointer}.json").write_text(json.dumps({"checkpoint": name, "step": 3}))
    before = sorted(tmp_path.rglob("*"))
    for command in (["evaluate", run.directory], ["run", "--resume", run.directory]):
        result = cli(*command)
        assert result.exit_code == 1, result.output
        assert "checkpoint" in result.stderr
    assert [path for path in before if not path.exists()] == []


@pytest.mark.parametrize("name", ["../../../secret", "{secret}", "../{own}/state.json"])
def test_a_manifest_names_only_its_own_files(cli, run, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    checkpoint = run.checkpoint()
    name = name.format(secret=secret, own=checkpoint.name)
    file = checkpoint / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["sha256"][name] = hashlib.sha256(secret.read_bytes()).hexdigest()
    file.write_text(json.dumps(manifest))
    result = cli("evaluate", run.directory)
    assert result.exit_code == 1
    assert f"{checkpoint} is damaged" in result.stderr
    assert cli("run", "--resume", run.directory).exit_code == 1
    assert secret.read_text() == "secret"


WRONG = ["../../x", -1, None, [["x"]], {"x": {"y": 1}}]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_a_state_of_wrong_types_is_refused(run, cli, value):
    """In the place of each of its entries in turn; the manifest says that all is well."""
    checkpoint = run.checkpoint()
    file = checkpoint / "state.json"
    content = json.loads(file.read_text())
    for key in ("step", "tasks", "optimizer", "judge", "meter"):
        file.write_text(json.dumps({**content, key: value}))
        signed(checkpoint)
        top = run.directory.parent.parent
        before = set(top.rglob("*"))
        result = cli("run", "--resume", run.directory)  # a traceback would fail the test
        assert result.exit_code == 1, (key, result.output)
        assert result.stderr.startswith("Error: ")
        assert {path for path in set(top.rglob("*")) - before if run.directory not in path.parents} == set()


# --- configs ---------------------------------------------------------------------------------------------------------

TAGS = [
    "!!python/object/apply:os.mkdir ['{canary}']",
    "!!python/object/new:os.mkdir ['{canary}']",
    "!!python/name:os.mkdir",
    "!!python/module:os",
    "!!python/tuple [1, 2]",
    "!!python/object:pathlib.Path {{}}",
    "!own {{a: 1}}",
]


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_makes_plain_values_only(cli, third_party, config_file, tmp_path, tag):
    canary = tmp_path / "canary"
    value = tag.format(canary=canary)
    config = config_file()
    plain = config.read_text()
    config.write_text(f"{plain}\nplugins: {value}\n")
    arguments = ("run", "--config", config, "--output", tmp_path / "run")
    result = cli(*arguments)
    assert result.exit_code == 2
    assert "is not valid YAML: could not determine a constructor for the tag" in result.stderr
    config.write_text(plain)
    assert cli(*arguments, "--set", f"train.seed={value}").exit_code == 2
    (tmp_path / "data.yaml").write_text(f"names: [a]\ntrain: images\nnc: {value}\n")
    with pytest.raises(DataError, match="is not YAML: could not determine a constructor"):
        yolo(tmp_path)
    assert not canary.exists()
    assert not (tmp_path / "run").exists()


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
)
"""A thousand million values."""


@pytest.mark.parametrize(
    "text", [BOMB, "a: &a [*a]", "a: &a {b: *a}", "a: " + "[" * 400, "a: &a {<<: *a}"], ids=lambda text: text[:14]
)
def test_yaml_does_not_blow_up(cli, third_party, tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    result = cli("config", "check", tmp_path / "config.yaml")
    assert result.exit_code == 2
    assert len(result.stderr) < 5000
    one_value = "{" + ", ".join(text.splitlines()) + "}"
    (tmp_path / "good.yaml").write_text(
        "task: classification\ndata: digits\nbackbone: {name: acme/tiny, weights: none}\n"
    )
    result = cli("config", "check", tmp_path / "good.yaml", "--set", f"augment={one_value}")
    assert result.exit_code == 2
    assert len(result.stderr) < 5000
    (tmp_path / "data.yaml").write_text(f"train: images\n{text}\nnames: [a]\n")
    with pytest.raises(DataError) as caught:
        yolo(tmp_path)
    assert len(str(caught.value)) < 5000


NAMES = ["canary_module.run", "canary_module:run", "canary_module", "../../x", "torch.optim.SGD"]


@pytest.fixture
def canary_module(tmp_path, monkeypatch):
    """A module that makes a folder when it is imported; returns the folder."""
    (tmp_path / "path").mkdir()
    canary = tmp_path / "canary"
    (tmp_path / "path" / "canary_module.py").write_text(f"import os\nos.mkdir({str(canary)!r})\ndef run(*_): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    return canary


@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_config_are_only_looked_up(cli, third_party, config_file, canary_module, name):
    for changes in (
        {"task": name},
        {"data": {"format": name}},
        {"backbone": {"name": name}},
        {"head": {"name": name}},
        {"loss": {"name": name}},
        {"metrics": [name]},
        {"freeze": {"name": name}},
        {"augment": [{"name": name}]},
        {"optimizer": {"name": name}},
        {"schedule": {"name": name}},
        {"regularizers": [name]},
        {"adapter": name},
        {"strategy": name},
    ):
        result = cli("config", "check", config_file(changes))
        assert result.exit_code == 2, changes
        assert name in result.stderr
    assert not canary_module.exists()
    if name == "canary_module":  # it would have been seen
        importlib.import_module(name)
        assert canary_module.exists()


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "a.b", "", ".."])
def test_a_task_s_name_is_no_path(cli, third_party, config_file, name):
    config = config_file({"task": None, "tasks": {name: {"task": "classification"}}})
    result = cli("config", "check", config)
    assert result.exit_code == 2
    assert "a task's name must be letters, digits and underscores" in result.stderr


# --- annotations -----------------------------------------------------------------------------------------------------


def yolo(root, **options):
    from ftengine_datasets.annotation_options import YoloOptions
    from ftengine_datasets.yolo import yolo as factory

    return factory(YoloOptions(root=root, **{"val": None, **options}), DatasetContext("train"))


def coco(root, name):
    from ftengine_datasets.annotation_options import CocoOptions
    from ftengine_datasets.coco import coco as factory

    content = {"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (root / "t.json").write_text(json.dumps(content))
    part = {"images": "images", "annotations": "t.json"}
    return factory(CocoOptions(root=root, train=part), DatasetContext("train"))


def table(root, name):
    from ftengine_datasets.csv_file import csv_file
    from ftengine_datasets.options import CsvOptions

    (root / "t.csv").write_text(f'image,label\n"{name}",a\n')
    return csv_file(CsvOptions(root=root, train="t.csv", images="images", label="label"), DatasetContext("train"))


def voc(root, name, entry="a", doctype=""):
    from ftengine_datasets.annotation_options import VocOptions
    from ftengine_datasets.voc import voc as factory

    (root / "Annotations").mkdir(exist_ok=True)
    (root / "train.txt").write_text(f"{entry}\n")
    thing = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>"
    (root / "Annotations" / "a.xml").write_text(f"{doctype}<annotation><filename>{name}</filename>{thing}</annotation>")
    return factory(VocOptions(root=root, train="train.txt", images="images"), DatasetContext("train"))


def voc_set(root, name):
    return voc(root, "a.png", entry=name)


def yolo_list(root, name):
    (root / "data.yaml").write_text("names: [a]\ntrain: list.txt\n")
    (root / "list.txt").write_text(f"{name}\n")
    (root / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    return yolo(root)


def yolo_folder(root, name):
    (root / "data.yaml").write_text(yaml.safe_dump({"names": ["a"], "train": str(Path(name).parent)}))
    return yolo(root)


def yolo_path(root, name):
    (root / "data.yaml").write_text(yaml.safe_dump({"names": ["a"], "path": str(Path(name).parent), "train": "."}))
    return yolo(root)


@pytest.mark.parametrize(
    "format", [coco, table, voc, voc_set, yolo_list, yolo_folder, yolo_path], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("name", ["../../outside/b.png", "{outside}/b.png", "../x/../../../outside/b.png"])
def test_paths_in_annotations_stay_inside_the_data_root(tmp_path, format, name):
    """The image is there, and readable; it is not opened."""
    root, outside = tmp_path / "top" / "data", tmp_path / "outside"
    for folder in (root / "images", outside):
        folder.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(outside / "b.png")
    Image.new("RGB", (9, 9)).save(root / "images" / "a.png")
    (outside / "b.xml").write_text("<annotation><filename>b.png</filename></annotation>")
    (outside / "b.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    given = name.format(outside=outside)
    with pytest.raises(DataError, match="points outside of the data root"):
        format(root, given.removesuffix(".png") if format is voc_set else given)


def test_links_are_the_user_s(tmp_path):
    root, outside = tmp_path / "data", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    Image.new("RGB", (9, 9)).save(outside / "b.png")
    (root / "images").symlink_to(outside)
    for data in (coco(root, "b.png"), table(root, "b.png"), voc(root, "b.png")):
        assert data.image(0).shape == (9, 9, 3)


LAUGHS = (
    "<!DOCTYPE a ["
    + '<!ENTITY l0 "'
    + "ha" * 50
    + '">'
    + "".join(f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' for level in range(1, 10))
    + "]>"
)


@pytest.mark.parametrize(
    ("doctype", "name"),
    [
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]>', "&x;"),
        ('<!DOCTYPE a [<!ENTITY % x SYSTEM "file://{secret}"> %x;]>', "a.png"),
        (LAUGHS, "&l9;"),
    ],
    ids=["entity", "parameter entity", "billion laughs"],
)
def test_xml_brings_in_nothing(tmp_path, doctype, name):
    secret = tmp_path / "secret"
    secret.write_text("a.png")
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(root / "images" / "a.png")
    doctype = doctype.replace("{secret}", str(secret))
    if name == "a.png":  # nothing stands for the entity, and nobody has looked for it
        assert voc(root, name, doctype=doctype).sample_id(0) == "images/a.png"
        return
    with pytest.raises(DataError, match=r"a\.xml:1: no XML at column \d+") as caught:
        voc(root, name, doctype=doctype)
    assert len(str(caught.value)) < 2000


def test_what_a_data_file_says_of_downloads_is_not_done(tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    monkeypatch.setattr(socket.socket, "connect", lambda *_: canary.mkdir())
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(tmp_path / "images" / "a.png", "../canary")
    for download in ("http://localhost/x.zip", f"bash mkdir {canary}", f"import os\nos.mkdir('{canary}')\n"):
        (tmp_path / "data.yaml").write_text(yaml.safe_dump({"names": ["a"], "train": "images", "download": download}))
        assert len(yolo(tmp_path)) == 1
        (tmp_path / "data.yaml").write_text(
            yaml.safe_dump({"names": ["a"], "train": "images.tar", "download": download})
        )
        with pytest.raises(DataError):
            yolo(tmp_path)
    assert not canary.exists()


# --- images ----------------------------------------------------------------------------------------------------------


def test_huge_images_are_not_decoded(tmp_path, monkeypatch):
    """tests/faults/test_odd_images.py has this for every format."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    file = tmp_path / "huge.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))))
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded.append)
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match="more than 178 million pixels"):
            read(file)
    assert decoded == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_only_known_formats_are_opened(tmp_path, monkeypatch):
    """Whatever Pillow can read, and whatever the file is called."""
    Image.init()
    others = sorted(set(Image.SAVE) - set(FORMATS))
    assert {"EPS", "PPM", "TGA"} <= set(others)
    opened = []
    for name in set(Image.OPEN) - set(FORMATS):
        accept = Image.OPEN[name][1]
        monkeypatch.setitem(Image.OPEN, name, (lambda *_, name=name: opened.append(name), accept))
    tried = []
    for name in others:
        content, file = io.BytesIO(), tmp_path / f"{name}.png"
        try:
            Image.new("RGB", (16, 16)).save(content, name)
        except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError):
            continue  # it writes no such image, or not without another program
        file.write_bytes(content.getvalue())
        if file.read_bytes()[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0", b"II*\0", b"MM\0*"):
            continue  # one of the known formats under another name
        tried.append(name)
        for read in (read_image, read_mask):
            with pytest.raises(DataError, match="not an image of a known format"):
                read(file)
        assert verify_images([file]) != []
    assert {"EPS", "PPM", "TGA", "PDF"} <= set(tried)
    assert opened == []


# --- what is written -------------------------------------------------------------------------------------------------


class Shows(Plain):
    """Draws everything, writes everything."""

    def describe(self, prediction):
        return {"x": 1}

    def records(self, prediction, image_id):
        return [{"image_id": image_id}]

    def index_map(self, prediction):
        return np.zeros((4, 4), np.uint8)

    def draw(self, image, prediction):
        return image

    def perfect(self, encoded):
        return {}


def test_predictions_stay_in_their_folder(tmp_path):
    """Images from all over, through links and dots, some of them of the same name."""
    names = ["in/a.png", "in/deep/../b.png", "in/../other/a.png", "other/..png.png", "other/a.png.png", "in/c\\d.png"]
    files = [tmp_path / name for name in names]
    for file in files:
        (file.parent / "deep").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(file)
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "other" / "a.png")
    files.append(tmp_path / "in" / "link.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    out, drawn = tmp_path / "results" / "out", tmp_path / "results" / "drawn"
    with PredictionFiles({"t": Shows()}, files, out, pictures=drawn) as written:
        for index in range(len(files)):
            written.add(index, {"t": {}})
    made = [path for path in tmp_path.rglob("*") if path.is_file() and path not in before]
    assert len(made) == 2 * len(files) + 2
    assert all(path.resolve().is_relative_to(tmp_path / "results") for path in made)
    assert all(path.read_bytes() == content for path, content in before.items())


class Named(Dataset):
    """Black images that are called as they are."""

    names = {}  # noqa: RUF012

    def __init__(self, ids):
        self.called = ids

    def __len__(self):
        return len(self.called)

    def target(self, index):
        return {}

    def image(self, index):
        return np.zeros((4, 4, 3), np.uint8)

    def sample_id(self, index):
        return self.called[index]


IDS = ["../../x", "/etc/x", "..", "a/../../../b", "\0", "C:\\x", "a\nb", "." * 300, "~/x", "$HOME"]


def test_pictures_stay_in_their_folder(tmp_path):
    warned = []
    page = Gallery(tmp_path / "run", len(IDS), warned.append).page(1)
    data = Named(IDS)
    page.show("../../task", Shows(), data, lambda target: target, range(len(IDS)), [{}] * len(IDS))
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == len(IDS), warned
    assert all(path.parent.parent.parent == tmp_path / "run" / "pictures" for path in made)


# --- processes -------------------------------------------------------------------------------------------------------


def test_a_run_of_one_process_opens_no_connection(runs, monkeypatch):
    used = []
    for name in ("connect", "bind", "sendto", "listen"):
        own = getattr(socket.socket, name)

        def noting(self, *arguments, own=own, name=name):
            if self.family != socket.AF_UNIX:
                used.append((name, arguments))
            return own(self, *arguments)

        monkeypatch.setattr(socket.socket, name, noting)
    runs({"train": {"epochs": 1}})
    runs({"train": {"epochs": 1, "workers": 1}})
    assert used == []
    with socket.socket() as one:  # it would have been seen
        one.bind(("127.0.0.1", 0))
    assert used
