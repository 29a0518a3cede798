"""What a user gets wrong is told in one sentence, with the right exit code."""

import errno

import pytest
from command import TINY, pictures, say

from selfdistill.cli.errors import error_message


def refused(*words):
    """The sentence and the code of a refusal."""
    said = say(*words)
    assert "Traceback" not in said.err + said.out
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    return errors[0], said.code


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--method", "mus"], 2, "did you mean 'muse'"),
        (["--model", "cifar/resnet19"], 2, "did you mean 'cifar/resnet18'"),
        (["--taps", "layr1"], 2, "did you mean 'layer1'"),
        (["--set", "foo=1"], 2, "has 'foo'"),
        (["--mean", "0.5"], 2, "mean is given and std is not"),
        (["--mean", "0.5,0.5", "--std", "0.2"], 2, "mean has 2 numbers and the network is shown"),
        (["--precision", "fp8"], 2, "precision = 'fp8' does not fit"),
        (["--device", "cpu", "--precision", "fp16"], 2, "fp16 needs a GPU"),
        (["--batch-size", "1"], 4, "raise --batch-size"),
        (["--method", "muse", "--batch-size", "1"], 4, "raise --batch-size"),
        (
            ["--method", "ce", "--batch-size", "2", "--accumulation-steps", "2"],
            4,
            "one image; raise",
        ),
        (["--max-train-images", "64", "--batch-size", "65"], 4, "do not fill one batch"),
        (["--data", "folder:nowhere"], 4, "nowhere"),
        (["--data", "digts"], 4, "did you mean 'digits'"),
        (["--lr", "1e9", "--max-train-images", "128"], 5, "no longer finite"),
        (["--recipe", "nowhere.toml"], 2, "nowhere.toml cannot be read"),
        (["--weights", "nowhere.pt"], None, "nowhere.pt"),
    ],
)
def test_train(words, code, sentence):
    said, got = refused("train", "--epochs", "1", *words)
    assert sentence in said
    assert got == code if code else got in (2, 6, 7)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epochs =", "is not TOML"),
        ("epoch = 3", "no key 'epoch' (did you mean 'epochs'?)"),
        ("epochs = 0", "epochs = 0 does not fit"),
        ("[options]\nfoo = 1", "no option 'foo'"),
    ],
)
def test_recipe_files(tmp_path, text, sentence):
    (tmp_path / "my.toml").write_text(text)
    said, code = refused("train", "--recipe", "my.toml")
    assert sentence in said
    assert code == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("taps", "cifar/resnet8", "--image-size", "9" * 30), 2),
        (("taps", "cifar/resnet8", "--channels", "9" * 30), 2),
        (("taps", "cifar/resnet8", "--image-size", "9" * 12), 7),
        (("taps", "cifar/resnet8", "--classes", "9" * 13), 7),
        (("taps", "cifar/resnet8\0"), 2),
        (("compare", "--jobs", "9" * 6000), 2),
        (("compare", "--seeds", "9" * 6000), 2),
        (("train", "--seed", "9" * 30), 2),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else str(value),
)
def test_numbers_beyond_all_use(words, code):
    assert refused(*words)[1] == code


def test_nothing_to_resume():
    said, code = refused("train", "--resume", "nowhere")
    assert "nowhere holds no run" in said
    assert code == 2


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    assert refused("train", *TINY, "--data", "folder:empty")[1] == 4


def test_one_class(tmp_path):
    pictures(tmp_path / "one", classes=["cat"])
    said, code = refused("train", *TINY, "--data", "folder:one")
    assert "class" in said
    assert code == 4


def test_images_too_small_for_the_network(tmp_path):
    pictures(tmp_path / "two")
    words = ("--image-size", "4", "--model", "torchvision/squeezenet1_1", "--method", "ce")
    said, code = refused("train", *TINY, "--batch-size", "8", "--data", "folder:two", *words)
    assert "cannot take images of 4×4" in said
    assert code == 2


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    said, code = refused("train", *TINY, "--out", tmp_path / "file" / "run")
    assert "cannot be written" in said
    assert code == 7


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (MemoryError(), 7),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), 7),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 7),
        (OSError(errno.EROFS, "Read-only file system"), 7),
        (OSError(errno.EIO, "Input/output error"), 1),
        (RuntimeError("shapes"), 1),
    ],
)
def test_verdicts(fault, code):
    sentence, got = error_message(fault)
    assert got == code
    assert bool(sentence) == (code != 1)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (("batch_size", "accumulation_steps"), "lower --batch-size, or split it by"),
        (("image_size", "batch_size"), "lower --batch-size"),
        (("model", "image_size"), "lower --image-size"),
        (("run",), "end other programs"),
    ],
)
def test_full_memory_names_an_option_that_the_command_has(options, remedy):
    assert error_message(MemoryError(), options)[0].startswith(f"the memory is full; {remedy}")


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (("num_workers", "batch_size", "accumulation_steps"), "lower --num-workers"),
        (("batch_size",), "lower --batch-size"),
        ((), "end other programs"),
    ],
)
def test_a_lost_worker_names_an_option_that_the_command_has(options, remedy):
    fault = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
    sentence, code = error_message(fault, options)
    assert sentence.startswith(f"a process that decodes images died; {remedy}")
    assert code == 7


def test_lightnings_own_exception():
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    assert error_message(MisconfigurationException("no such device\nmore")) == ("no such device", 2)


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("selfdistill.models.list_models", lambda *_: 1 / 0)
    said = say("models")
    assert said.code == 1
    assert "Traceback" in said.err
    assert "ZeroDivisionError" in said.err
    assert said.err.splitlines()[-1].startswith("error: this is a bug in selfdistill")


def test_ctrl_c(monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("selfdistill.models.list_models", stop)
    assert say("models") == (130, "", "error: stopped\n")


def test_markup_in_a_sentence_is_plain_text():
    assert "'[bold]x[/nope]'" in refused("train", "--method", "[bold]x[/nope]")[0]


def test_paths_longer_than_a_file_system_takes(tmp_path):
    long = "x" * 5000
    for words in (
        ("--out", long),
        ("--out", f"{tmp_path}/{'y' * 300}/z"),
        ("--data", f"npz:{long}"),
        ("--data", f"folder:{long}"),
        ("--weights", f"{long}.pth"),
        ("--recipe", long),
        ("--method", "kd", "--teacher", long),
        ("--import", f"{long}.py"),
    ):
        said = say("train", "--epochs", "1", *words)
        assert said.code in (2, 4), said.err
        assert said.err.startswith("error: ")
        assert "bug" not in said.err


def test_an_output_directory_whose_name_is_no_text(tmp_path):
    said = say("train", "--epochs", "1", "--out", str(tmp_path / "a\udcff"))
    assert said.code == 2
    assert "not UTF-8" in said.err
