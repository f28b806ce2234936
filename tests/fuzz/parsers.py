"""Every parser of this project with real files to damage: of texts, images, data, models, runs.

Each function makes its files in a folder and returns a `Fuzz`.
"""

import contextlib
import io
import json
import os
import shutil
import tarfile
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from fuzz.edits import Strategy, changed_json, damaged, values
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file

from wuerstchen import config, weights
from wuerstchen.config import StageAModel
from wuerstchen.data.images import open_image
from wuerstchen.data.report import Report
from wuerstchen.data.tars import read_tars
from wuerstchen.display import printable, printable_lines
from wuerstchen.errors import ConfigError
from wuerstchen.models.stage_a import StageA
from wuerstchen.parsing import ParseError, parse_json, parse_yaml


@dataclass(frozen=True)
class Fuzz:
    """A parser and its inputs."""

    parse: Callable[[bytes], object]
    inputs: Strategy


def at(path: Path, parse: Callable[[], object]) -> Callable[[bytes], object]:
    """Parse after writing the input to `path`."""

    def write_and_parse(data: bytes) -> object:
        path.write_bytes(data)
        return parse()

    return write_and_parse


def mixed(seeds: Sequence[bytes]) -> Strategy:
    """Damaged JSON files, as bytes and as documents."""
    return st.one_of(damaged(seeds), changed_json([json.loads(seed) for seed in seeds]))


# Texts


def json_text(folder: Path) -> Fuzz:
    def parse(data: bytes) -> None:
        try:
            parse_json(data)
        except ParseError:
            return

    seeds = [b'{"a": [1, 2.5, true, null, "\\u00e9\\ud83d\\ude00"], "b": {"c": -3e4}}']
    arbitrary = st.builds(lambda v: json.dumps(v).encode("utf-8", "surrogatepass"), values)
    return Fuzz(parse, st.one_of(damaged(seeds), arbitrary, st.binary(max_size=40)))


def yaml_text(folder: Path) -> Fuzz:
    def parse(data: bytes) -> None:
        try:
            parse_yaml(data)
        except ParseError:
            return

    words = ("&a", "*a", "<<:", "- ", "? ", ": ", "{", "}", "[", "]", "|\n ", ">", "!!int ")
    more = ("!!set ", "!!binary ", "!!timestamp ", "2020-13-45", "1:99", ".inf", "0b", "\n", "%")
    pieces = st.lists(st.sampled_from(words + more + ("a", "1", '"', "'", "  ")), max_size=20)
    seeds = [
        b"a: 1\nb:\n  - x\n  - {c: 2.5, d: [true, null]}\ne: &x {f: 2001-01-01}\ng: *x\n",
        b"h:\n  <<: {a: 1}\n  b: |\n    text\n  c: !!binary aGVsbG8=\n  ? [d]\n",
    ]
    return Fuzz(parse, st.one_of(damaged(seeds), pieces.map(lambda p: "".join(p).encode())))


def displayed_text(folder: Path) -> Fuzz:
    def parse(data: bytes) -> None:
        for text in (data.decode("utf-8", "surrogateescape"), data.decode("latin-1")):
            shown = printable(text, 100)
            assert all(c == "\t" or unicodedata.category(c) not in ("Cc", "Cs") for c in shown)
            assert not {"\n", "\x1b", "\x9b", "\u202e"} & set(shown) and len(shown) < 1000
            shown.encode("utf-8")
            assert "\x1b" not in printable_lines(text)

    return Fuzz(parse, st.one_of(st.binary(max_size=300), st.text(max_size=300).map(_utf8)))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def config_file(folder: Path) -> Fuzz:
    path = folder / "config.yaml"
    seeds = [
        config.dump(config.load("tiny", ["data.path=x"])).encode()[:4000],
        b"name: x\nstage_a:\n  model: {width: 16}\n  training: {images: 4, batch_size: 2}\n",
    ]
    documents = changed_json([config.load("tiny", ["data.path=x"]).model_dump(mode="json")])
    short = damaged(seeds[1:])
    return Fuzz(at(path, lambda: config.load(str(path))), st.one_of(short, short, documents))


def overrides(folder: Path) -> Fuzz:
    def parse(data: bytes) -> None:
        words = [os.fsdecode(word) for word in data.split(b"\0")]
        for read in (lambda: config.load("tiny", words), lambda: config.load_data(words)):
            with contextlib.suppress(ConfigError):
                read()
        config.load_prepare("paper", words)

    seeds = [
        *(b"data.path=x", b"data.size=128", b"stage_b.model.widths=[8, 16]", b"size=256"),
        *(b"filters.min_side=64\0shape=area", b"stage_c.training.learning_rate=1e-4\0seed=3"),
    ]
    return Fuzz(parse, damaged(seeds))


def prompt_file(folder: Path) -> Fuzz:
    from wuerstchen.cli.evaluate import read_prompts

    path = folder / "prompts.txt"
    seeds = ["a red heart\nein Würstchen\n\n  two \n".encode()]
    return Fuzz(at(path, lambda: read_prompts(path)), damaged(seeds))


# Images


def image_bytes(kind: str, **options: object) -> bytes:
    image = Image.linear_gradient("L").resize((40, 32)).convert("RGB")
    if kind == "GIF":
        image = image.convert("P")
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def images(folder: Path) -> Fuzz:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    text = PngImagePlugin.PngInfo()
    text.add_text("caption", "x" * 300, zip=True)
    seeds = [
        image_bytes("PNG", pnginfo=text, exif=exif),
        image_bytes("JPEG", exif=exif, progressive=True),
        *(image_bytes("WEBP", exif=exif), image_bytes("GIF"), image_bytes("TIFF")),
        *(image_bytes("BMP"), image_bytes("PPM"), image_bytes("JPEG")),
    ]
    return Fuzz(lambda data: open_image(data, 16, "white"), damaged(seeds))


def image_settings(folder: Path) -> Fuzz:
    from wuerstchen.inference.png_metadata import OWN, read_settings

    path = folder / "image.png"
    document: dict[str, object] = {
        **{"prompt": "a heart", "negative_prompt": "", "seed": 5, "width": 128, "height": 128},
        **{"model": "stickers", "version": "1.0", "dtype": "fp32", "batch": [5, 1], "loras": {}},
        **{"prior_timesteps": [1.0, 0.5, 0.0], "decoder_timesteps": [1.0, 0.0]},
        **{"prior_guidance_scale": 4.0, "decoder_guidance_scale": 0.0},
        **{"prior_guidance_interval": [0.25, 1.0], "prior_sampler": "ddpm"},
    }

    def picture(settings: bytes) -> bytes:
        chunk = PngImagePlugin.PngInfo()
        chunk.add_text(OWN, settings.decode("utf-8", "replace"))
        return image_bytes("PNG", pnginfo=chunk)

    seed = picture(json.dumps(document).encode())
    texts = st.one_of(changed_json([document]), damaged([json.dumps(document).encode()]))
    return Fuzz(
        at(path, lambda: read_settings(path)), st.one_of(damaged([seed]), texts.map(picture))
    )


# Data


def tars(folder: Path) -> Fuzz:
    path = folder / "00000.tar"

    def tar(kind: int) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as out:
            for name, data in (
                *(("a.png", image_bytes("PNG")), ("a.txt", b"a thing"), ("a.json", b'{"x": 1}')),
                (
                    f"{'long' * 20}.txt" if kind == tarfile.USTAR_FORMAT else f"{'long' * 40}.txt",
                    b"words",
                ),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                if kind == tarfile.PAX_FORMAT:
                    info.pax_headers = {"size": str(len(data)), "comment": "é"}
                out.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("b.png")
            link.type, link.linkname = tarfile.LNKTYPE, "a.png"
            out.addfile(link)
        return file.getvalue()

    def parse() -> None:
        report = Report(str(folder), "tars")
        for item in read_tars(folder, [PurePosixPath(path.name)], report):
            if item.image is not None:
                with contextlib.suppress(OSError):
                    assert len(item.image.read()) < 10**7
        report.summary().encode()

    kinds = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
    return Fuzz(at(path, parse), damaged([tar(kind)[:12_288] for kind in kinds]))


def tables(folder: Path) -> Fuzz:
    from wuerstchen.data.sources import find_source

    csv, jsonl = folder / "metadata.csv", folder / "metadata.jsonl"
    for name in ("0.png", "1.png"):
        (folder / name).write_bytes(image_bytes("PNG"))

    def parse(data: bytes) -> None:
        path = csv if data[:1] == b"c" else jsonl
        path.write_bytes(data[1:])
        find_source(str(folder)).items()
        path.unlink()

    rows = (
        b'{"file_name": "0.png", "text": "a thing", "n": 1}\n{"file_name": "1.png", "text": []}\n'
    )
    seeds = [
        b'cfile_name,text,score\n0.png,"a, ""b""\nc",1.5\n1.png,d,\n',
        "cfile_name;caption\n./0.png;ä\n".encode("latin-1"),
        b"j" + rows,
    ]
    return Fuzz(parse, damaged(seeds))


def captions(folder: Path) -> Fuzz:
    from wuerstchen.data.sources import find_source

    (folder / "0.png").write_bytes(image_bytes("PNG"))

    def parse(data: bytes) -> None:
        path = folder / ("0.txt" if data[:1] == b"t" else "0.json")
        path.write_bytes(data[1:])
        for per_line in (True, False):
            for item in find_source(str(folder)).items(caption_per_line=per_line):
                for caption in item.captions or ():
                    caption.encode()
        path.unlink()

    seeds = [
        "ta thing\r\nein Würstchen\n".encode(),
        b'j{"caption": "a", "captions": ["b"], "n": 1}',
    ]
    return Fuzz(parse, damaged(seeds))


def _prepared(folder: Path) -> Path:
    """A prepared set, made in a child: pyarrow's threads do not outlive a fork."""
    from wuerstchen.config import PrepareConfig

    out = folder / "set"
    source = folder / "source"
    source.mkdir()
    for number in range(6):
        image = Image.effect_noise((128, 128), 20 + 30 * number).convert("RGB")
        image.save(source / f"{number}.png")
        (source / f"{number}.txt").write_text(f"thing {number}")
    if os.fork() == 0:
        try:
            from wuerstchen.prepare.prepare import prepare

            prepare(str(source), out, PrepareConfig(size=128, test_fraction=0.3))
        finally:
            os._exit(0)
    os.wait()
    return out


def _read_set(folder: Path) -> None:
    from wuerstchen.config import DataConfig
    from wuerstchen.data import open_pairs

    for pairs in open_pairs(DataConfig(path=str(folder), size=128))[:2]:
        for index in range(min(len(pairs), 3)):
            str(pairs[index]).encode("utf-8", "backslashreplace")
            pairs.image(index)


def parquet_index(folder: Path) -> Fuzz:
    from wuerstchen.digests import file_digest

    out = _prepared(folder)
    index, info = out / "index.parquet", out / "prepared.json"
    stated = json.loads(info.read_text())

    def parse(data: bytes) -> None:
        index.write_bytes(data)
        info.write_text(json.dumps(stated | {"index_sha256": file_digest(index)}))
        _read_set(out)

    return Fuzz(parse, damaged([index.read_bytes()]))


def prepared_info(folder: Path) -> Fuzz:
    out = _prepared(folder)
    path = out / "prepared.json"
    return Fuzz(at(path, lambda: _read_set(out)), mixed([path.read_bytes()]))


def preparation_state(folder: Path) -> Fuzz:
    from wuerstchen.prepare.claim import Claim, wait_for_claim

    path = folder / "parts" / "begun.json"
    path.parent.mkdir()
    settings = config.PrepareConfig(size=128).model_dump(mode="json")
    seeds = [Claim(source="images", settings=settings).model_dump_json().encode()]
    return Fuzz(at(path, lambda: wait_for_claim(folder, "images", settings)), mixed(seeds))


# Models


def safetensors(folder: Path) -> Fuzz:
    from wuerstchen.lora.describe import describe_lora

    path, other = folder / "model.safetensors", folder / "other.safetensors"
    save_file({"a.weight": torch.ones(4, 3), "b": torch.ones(2, dtype=torch.int64)}, path)
    save_file(
        {"down_blocks.0.x": torch.ones(1)},
        other,
        {"format": "pt", "README.md": "---\nlicense: x\n---"},
    )
    seeds = [path.read_bytes(), other.read_bytes(), _small_stage_a(folder).read_bytes()]

    def header(text: bytes) -> bytes:
        return len(text).to_bytes(8, "little") + text + bytes(64)

    documents = changed_json([_header(seed) for seed in seeds])

    def parse() -> None:
        describe_lora(path) or weights.describe(path)

    return Fuzz(at(path, parse), st.one_of(damaged(seeds), documents.map(header)))


def _header(content: bytes) -> object:
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def _small_stage_a(folder: Path) -> Path:
    """The weights of a network that is known by its keys."""
    network = StageA(StageAModel(width=4, depth=1, codebook=4))
    weights.stage_a.save(folder / "small", network)
    return next((folder / "small" / "vqgan").glob("*.safetensors"))


def torch_file(folder: Path) -> Fuzz:
    path = folder / "model.pt"
    torch.save({"state_dict": {"a.weight": torch.ones(4, 3), "b": torch.ones(2)}, "step": 3}, path)
    seeds = [path.read_bytes()]
    torch.save({"state_dict": load_file(_small_stage_a(folder)), "step": 3}, path)
    seeds.append(path.read_bytes())
    return Fuzz(at(path, lambda: weights.describe(path)), damaged(seeds))


def lora_file(folder: Path) -> Fuzz:
    from hand_made import networks

    from wuerstchen.lora import Lora, LoraLayer, save_lora
    from wuerstchen.lora.load import read_lora

    nets = networks()
    weight = nets.stage_c.get_submodule("blocks.0.channelwise.0").weight
    layer = LoraLayer(down=torch.ones(2, weight.shape[1]), up=torch.ones(len(weight), 2), alpha=2.0)
    path, seeds = folder / "lora.safetensors", []
    for style in ("kohya", "diffusers"):
        made = Lora(source="x", format=style, layers={"stage_c": {"blocks.0.channelwise.0": layer}})
        save_lora(path, made, style=style)
        file = next(
            each for each in (path, path / "pytorch_lora_weights.safetensors") if each.is_file()
        )
        seeds.append(file.read_bytes())
        if path.is_dir():
            shutil.rmtree(path)

    def parse() -> None:
        read_lora(path, stage_c=nets.stage_c, stage_b=nets.stage_b, text_c=nets.text_c)

    return Fuzz(at(path, parse), damaged(seeds))


def lora_config(folder: Path) -> Fuzz:
    from hand_made import halves, networks

    from wuerstchen.lora.load import read_lora

    nets = networks()
    name = "blocks.0.channelwise.0"
    down, up = halves(nets.stage_c.get_submodule(name), 2)
    stem = f"base_model.model.{name}.lora_"
    save_file(
        {f"{stem}A.weight": down, f"{stem}B.weight": up}, folder / "adapter_model.safetensors"
    )
    path = folder / "adapter_config.json"
    document = {
        **{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False, "bias": "none"},
        **{"alpha_pattern": {name: 8}, "rank_pattern": {}, "target_modules": [name]},
    }

    def parse() -> None:
        read_lora(folder, stage_c=nets.stage_c, stage_b=None)

    return Fuzz(at(path, parse), mixed([json.dumps(document).encode()]))


def _model(folder: Path) -> Path:
    """A whole small model."""
    from models_small import small_pipeline

    small_pipeline().save_pretrained(folder / "model")
    return folder / "model"


def model_configs(folder: Path) -> Fuzz:
    model = _model(folder)
    names = ("vqgan", "decoder", "prior_prior", "text_encoder", "scheduler", "prior_scheduler")
    paths = [
        model / name / ("scheduler_config.json" if "scheduler" in name else "config.json")
        for name in names
    ]
    paths.append(model / "model_index.json")
    good = [path.read_bytes() for path in paths]
    parts = (weights.stage_a, weights.stage_b, weights.stage_c, weights.text_b)

    def parse(data: bytes) -> None:
        number = data[0] % len(paths)
        paths[number].write_bytes(data[1:])
        try:
            weights.resolve(model)
            if number < len(parts):
                parts[number].load(model)
        finally:
            paths[number].write_bytes(good[number])

    each = [mixed([seed]).map(lambda d, n=n: bytes([n]) + d) for n, seed in enumerate(good)]
    return Fuzz(parse, st.one_of(each))


def model_info(folder: Path) -> Fuzz:
    from wuerstchen.inference.model_info import INFO_FILE, read_info

    path = _model(folder) / INFO_FILE
    return Fuzz(at(path, lambda: read_info(path.parent, "x")), mixed([path.read_bytes()]))


def tokenizers(folder: Path) -> Fuzz:
    from wuerstchen.weights.tokenizer import load_tokenizer

    model = _model(folder)
    files = weights.component_in(model, "text_c")
    place = model / "prior_tokenizer"
    paths = sorted(place.glob("*.json"))
    good = [path.read_bytes() for path in paths]

    def parse(data: bytes) -> None:
        number = data[0] % len(paths)
        paths[number].write_bytes(data[1:])
        try:
            load_tokenizer(files)
        finally:
            paths[number].write_bytes(good[number])

    each = [mixed([seed]).map(lambda d, n=n: bytes([n]) + d) for n, seed in enumerate(good)]
    return Fuzz(parse, st.one_of(each))


def shard_index(folder: Path) -> Fuzz:
    name = "model-00001-of-00001.safetensors"
    tensors = load_file(_small_stage_a(folder))
    home = folder / "sharded"
    home.mkdir()
    save_file(tensors, home / name)
    path = home / "model.safetensors.index.json"
    index = {"metadata": {"total_size": 48}, "weight_map": dict.fromkeys(tensors, name)}
    return Fuzz(at(path, lambda: weights.describe(home)), mixed([json.dumps(index).encode()]))


def model_card(folder: Path) -> Fuzz:
    from wuerstchen.weights.folder import licence

    path = folder / "README.md"
    seeds = [b"---\nlicense: mit\nbase_model:\n- a/b\nprior: c/d\ntags: [x, y]\n---\n# Words\n"]
    return Fuzz(at(path, lambda: licence(folder)), damaged(seeds))


# Runs


def checkpoints(folder: Path) -> Fuzz:
    from wuerstchen.digests import SUMS
    from wuerstchen.training.checkpoints import Checkpoints, load

    tensors = {"network.weight": torch.ones(6, 5), "optimizer.step": torch.tensor(3.0)}
    Checkpoints(folder / "good", keep=2).save(tensors, {"images": 8, "best": None})
    run = folder / "run"
    names = sorted(
        path.relative_to(folder / "good").as_posix()
        for path in (folder / "good").rglob("*")
        if path.is_file()
    )
    good = [(folder / "good" / name).read_bytes() for name in names]

    def parse(data: bytes) -> None:
        number = data[0] % len(names)
        shutil.rmtree(run, ignore_errors=True)
        for name, content in zip(names, good, strict=True):
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_bytes(data[1:] if name == names[number] else content)
            if data[0] >= 128 and name.endswith(SUMS):  # as earlier versions wrote them
                (run / name).unlink()
        kept = Checkpoints(run, keep=2)
        kept.started(), kept.best()
        if (newest := kept.newest()) is not None:
            load(newest, {name: torch.zeros_like(each) for name, each in tensors.items()})

    each = [damaged([s]).map(lambda d, n=n: bytes([n]) + d) for n, s in enumerate(good)]
    old = [damaged([s]).map(lambda d, n=n: bytes([128 + n]) + d) for n, s in enumerate(good)]
    return Fuzz(parse, st.one_of(each + (old if 128 % len(names) == 0 else [])))


def ledger(folder: Path) -> Fuzz:
    from made_phases import amounts, made

    from wuerstchen.receipts import Tariff, open_receipt
    from wuerstchen.receipts.phases import LEDGER, append_phases

    path = folder / LEDGER
    append_phases(folder, [made(f"0{n}", training=amounts(n, 8 * n), saved=8) for n in (1, 2, 3)])
    seed = path.read_bytes()
    lines = changed_json([json.loads(line) for line in seed.splitlines()])
    inputs = st.one_of(damaged([seed]), lines.map(lambda line: seed + line + b"\n"))
    return Fuzz(at(path, lambda: open_receipt(folder, Tariff())), inputs)


def receipt_file(folder: Path) -> Fuzz:
    from made_phases import amounts, made

    from wuerstchen.receipts import Tariff, open_receipt, write_receipts
    from wuerstchen.receipts.folder import saved_tariff
    from wuerstchen.receipts.phases import LEDGER, append_phases
    from wuerstchen.receipts.table import as_text

    append_phases(folder, [made("01", training=amounts(1, 8))])
    write_receipts(folder, Tariff())
    path = folder / "receipt.json"
    seed = path.read_bytes()
    (folder / LEDGER).unlink()

    def parse() -> None:
        saved_tariff(folder)
        as_text([open_receipt(folder, Tariff())], [])

    return Fuzz(at(path, parse), mixed([seed]))


def encodings(folder: Path) -> Fuzz:
    from wuerstchen.training.latent_cache import Encoding, folder_name, read_encoding

    made_of = {"data": "x", "weights": "y", "dtype": "fp16"}
    home = folder / folder_name("latents", made_of)
    home.mkdir()
    save_file({"0": torch.ones(3), "1": torch.ones(3)}, home / "00000.safetensors")
    shard = (home / "00000.safetensors").read_bytes()
    document = {"version": 1, "what": "latents", "rows": 2, "dtype": "fp16", "made_of": made_of}
    seed = json.dumps(document).encode()

    def parse(data: bytes) -> None:
        (home / "encoding.json").write_bytes(data[1:] if data[0] else seed)
        (home / "00000.safetensors").write_bytes(shard if data[0] else data[1:])
        if (info := read_encoding(home)) is not None:
            Encoding(home, info).rows([0, 1])

    of_json = mixed([seed]).map(lambda d: b"\1" + d)
    return Fuzz(parse, st.one_of(of_json, damaged([shard]).map(lambda d: b"\0" + d)))


def run_files(folder: Path) -> Fuzz:
    from wuerstchen.training.resume_check import changed_keys, data_digest
    from wuerstchen.training.run_log import RunLog

    settings = config.load("tiny", ["data.path=x"])
    seeds = [
        b"c" + config.dump(settings).encode()[:1500],
        b'd{"path": "x", "digest": "abc", "skipped": {}}',
        b'l{"images": 8, "loss": 0.5}\n{"images": 16, "loss": 0.25}\n',
    ]
    files = {b"c": "config.yaml", b"d": "data.json", b"l": "log.jsonl"}

    def parse(data: bytes) -> None:
        path = folder / files.get(data[:1], "data.json")
        path.write_bytes(data[1:])
        data_digest(folder)
        RunLog(folder, writes=True).truncate(8)
        changed_keys(folder, settings, "a")

    return Fuzz(parse, damaged(seeds))


def marks(folder: Path) -> Fuzz:
    from wuerstchen.marks import MARK, RUNS, make_mark, mark_of

    make_mark(folder, "model")
    file = folder / "x.bin"
    file.write_bytes(b"x")
    mark = mark_of(folder)
    assert mark is not None
    mark.adopt([file])
    path = folder / RUNS / MARK

    def parse() -> None:
        found = mark_of(folder)
        assert found is not None
        found.wrote(file), found.kind

    return Fuzz(at(path, parse), damaged([path.read_bytes()]))


PARSERS: dict[Callable[[Path], Fuzz], int] = {
    **{json_text: 2000, yaml_text: 1500, displayed_text: 1000, prompt_file: 300},
    **{config_file: 800, overrides: 800, images: 2500, image_settings: 1500},
    **{tars: 1500, tables: 1200, captions: 1000, parquet_index: 700, prepared_info: 500},
    **{preparation_state: 500, safetensors: 2000, torch_file: 1000, lora_file: 1000},
    **{lora_config: 500, model_configs: 1000, model_info: 600, tokenizers: 400},
    **{shard_index: 500, model_card: 500, checkpoints: 500, ledger: 800, receipt_file: 400},
    **{encodings: 400, run_files: 500, marks: 300},
}
"""Every parser with its number of cases."""
