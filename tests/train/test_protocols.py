import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from models import VOCAB, laws, make_lm, make_model, save, uniform_lm
from reference import load_plain, mean_loss

from charlm.errors import ModelFileError, RequestError
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.vocab import Vocab
from train import protocols
from train.data import load_text, make_text
from train.encode import encode_pieces
from train.protocols import PROTOCOLS, Holdout, OverlappingWindows, evaluate, ids_in_vocab, split_text
from train.split import parse_split

LAST_WINDOWED = 268_330


def as_text(content):
    return make_text("a text", encode_pieces([content], "a text"))


def random_content(length, seed=3, symbols=VOCAB):
    return "".join(np.random.default_rng(seed).choice(list(symbols), length))


def all_different(length):
    """A text whose symbols, as ids, are their own places."""
    return "".join(map(chr, range(0x4E00, 0x4E00 + length)))


@pytest.fixture(params=CELLS)
def both(request, tmp_path):
    """The same model as charlm loads it, and as plain torch does."""
    folder = save(make_model(request.param), tmp_path / "model")
    return CharLM.from_pretrained(folder, device="cpu"), load_plain(folder)[0]


@pytest.fixture
def short_windows_text(monkeypatch):
    """Windows are cut from the first 100 characters of a text."""
    monkeypatch.setattr(protocols, "WINDOWS_TEXT", 100)


def places_read(protocol, batch_size=1, seq_length=30, seed=0, epoch=1):
    """The inputs (T, B) of each step of an epoch on a text whose symbols are their own places."""
    batches = protocol.batches(batch_size, seq_length, seed)
    return [batches.batch(epoch, step) for step in range(batches.steps_per_epoch)]


def training_starts(protocol, **options):
    return [start for inputs, _ in places_read(protocol, **options) for start in inputs[0].tolist()]


# Holdout


@laws
@given(st.integers(11, 5000))
def test_the_first_nine_tenths_train_and_the_rest_validates(length):
    split = Holdout(as_text("ab" * (length // 2) + "a" * (length % 2))).split
    assert split == {"train_chars": length * 9 // 10, "val_chars": length - length * 9 // 10}


def test_the_split_of_tinyshakespeare_is_that_of_other_projects():
    assert Holdout(as_text("xy" * (1_115_394 // 2))).split == {"train_chars": 1_003_854, "val_chars": 111_540}


def test_what_validates_is_never_read_in_training():
    protocol = Holdout(as_text(all_different(200)))
    seen = [
        int(targets.max())
        for epoch in range(1, 30)
        for _, targets in places_read(protocol, batch_size=protocol.max_batch_size(20), seq_length=20, epoch=epoch)
    ]
    assert max(seen) == 179


@laws
@given(st.integers(11, 400), st.integers(1, 200))
@example(20, 9)
@example(20, 10)
def test_as_many_streams_fit_as_leave_one_step_and_a_text_without_two_sequences_is_refused(length, seq_length):
    train_chars = length * 9 // 10
    protocol = Holdout(as_text("ab" * (length // 2) + "a" * (length % 2)))
    if train_chars < 2 * seq_length:
        with pytest.raises(RequestError, match=f"has {train_chars} characters; sequences of {seq_length} need"):
            protocol.seq_length(seq_length, 128)
        return
    assert protocol.seq_length(seq_length, 128) == seq_length
    streams = protocol.max_batch_size(seq_length)
    assert protocol.batches(streams, seq_length, 0).steps_per_epoch == 1
    assert protocol.batches(streams + 1, seq_length, 0).steps_per_epoch == 0


@pytest.mark.parametrize("length", [2, 9, 10])
def test_a_text_too_short_to_be_measured_is_refused(length):
    with pytest.raises(RequestError, match=f"only {length} characters; it needs at least 11"):
        Holdout(as_text("ab" * (length // 2) + "c" * (length % 2)))


def test_sequences_are_of_128_unless_said_otherwise():
    assert Holdout(as_text("ab" * 200)).seq_length(None, 128) == 128


def test_with_three_shares_the_third_part_neither_trains_nor_validates():
    text = as_text(all_different(200))
    protocol = Holdout(text, shares=parse_split("0.7,0.2,0.1"))
    assert protocol.split == {"train_chars": 140, "val_chars": 40, "test_chars": 20}
    read = [int(targets.max()) for _, targets in places_read(protocol, batch_size=3, seq_length=20)]
    assert max(read) <= 139


@pytest.mark.slow
@pytest.mark.parametrize("split", ["0.6,0.4", "0.5,0.3,0.2"])
def test_each_part_is_measured_by_itself_from_a_zero_state(both, split):
    lm, plain = both
    content = random_content(1000)
    losses, skipped = evaluate(lm, as_text(content), "holdout", split)
    parts = {"0.6,0.4": [(600, 1000)], "0.5,0.3,0.2": [(500, 800), (800, 1000)]}[split]
    val, *test = [lm.vocab.encode(content[start:end]) for start, end in parts]
    expected = {"val_loss": mean_loss(plain, val), "val_loss_reset256": mean_loss(plain, val, reset_every=256)}
    if test:
        expected["test_loss"] = mean_loss(plain, test[0])
    assert losses == pytest.approx(expected, abs=1e-5)
    assert skipped == 0


@pytest.mark.parametrize("chars", [40, 41, 43])
def test_the_halves_of_the_text_that_validates_are_measured_in_one_reading(both, chars):
    lm, plain = both
    content = random_content(10 * chars)
    losses, _ = evaluate(lm, as_text(content), "holdout", halves=True)
    val = lm.vocab.encode(content[9 * chars :])
    half = chars // 2
    first = mean_loss(plain, val[:half])
    assert losses["val_loss_first_half"] == pytest.approx(first, abs=1e-5)
    second = mean_loss(plain, val) * (chars - 1) - first * (half - 1)  # the state goes on from the first half
    assert losses["val_loss_second_half"] == pytest.approx(second / (chars - half), abs=1e-4)


def test_a_text_without_halves_is_refused(both):
    lm, _ = both
    with pytest.raises(RequestError, match="the part that validates has 3 characters; --halves needs 4"):
        evaluate(lm, as_text(random_content(1000)), "holdout", "0.997,0.003", halves=True)


def test_characters_of_the_test_part_that_the_model_does_not_know_are_counted_too():
    content = "a" * 80 + "ab" * 4 + "€b" + "b€b" * 3 + "a"
    losses, skipped = evaluate(make_lm(), as_text(content), "holdout", "0.8,0.1,0.1")
    assert skipped == 4 and losses.keys() == {"val_loss", "val_loss_reset256", "test_loss"}


@pytest.mark.parametrize(
    ("content", "part"), [("ab" * 45 + "€" * 8 + "ab", "validation"), ("ab" * 48 + "a€€€", "test")]
)
def test_a_part_of_which_the_model_knows_nothing_is_named(content, part):
    lm = make_lm(vocab="ab")
    with pytest.raises(
        RequestError, match=f"the model knows no more than (0 characters|1 character) of a text's {part} part"
    ):
        evaluate(lm, as_text(content), "holdout", "0.9,0.06,0.04")


@pytest.mark.parametrize("pieces", [3, protocols.IDS_PER_RECODING])
def test_symbols_that_only_the_later_parts_have_are_counted(monkeypatch, pieces):
    monkeypatch.setattr(protocols, "IDS_PER_RECODING", pieces)
    content = "abc한" * 20 + "ab€€a€abab" + "abz€ababab"
    protocol = Holdout(as_text(content), shares=parse_split("0.8,0.1,0.1"))
    assert protocol.untrained == {"z": 1, "€": 4}
    assert protocol.vocab.symbols == "abcz€한"
    assert Holdout(as_text("ab" * 50)).untrained == {}


def test_what_a_measured_model_was_not_trained_on_is_not_known_from_the_text():
    assert Holdout(as_text("ab" * 45 + "c" * 10), Vocab("abc")).untrained == {}


# Windows


def test_every_window_of_the_first_characters_trains_or_validates_and_four_fifths_train(short_windows_text):
    protocol = OverlappingWindows(as_text(all_different(150)))
    starts = training_starts(protocol)
    assert len(starts) == len(set(starts)) == 56  # of 70: a window of 30 and the symbol after it, in 100
    assert set(starts) < set(range(70))
    assert starts != sorted(starts)
    for inputs, targets in places_read(protocol):
        assert inputs[:, 0].tolist() == list(range(int(inputs[0]), int(inputs[0]) + 30))
        assert torch.equal(targets, inputs + 1)
    assert protocol.split == {
        "train_chars": 56 * 30,
        "val_chars": 14 * 30,
        "train_windows": 56,
        "val_windows": 14,
        "unseen_chars": 0,  # all of them are other symbols
    }


def test_the_split_into_windows_is_the_same_for_every_run(short_windows_text):
    text = as_text(all_different(150))
    runs = [training_starts(OverlappingWindows(text), batch_size=8, seed=seed, epoch=seed + 1) for seed in range(3)]
    assert len(set(map(tuple, runs))) == 3
    assert len({frozenset(run) for run in runs}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("length", [41, 100, 130, 300])
def test_the_losses_of_windows_are_those_of_the_windows_left_and_of_the_text_after(short_windows_text, both, length):
    lm, plain = both
    text = as_text(random_content(length))
    losses, skipped = evaluate(lm, text, "windows")
    windowed = min(length, 100)
    shape = as_text(all_different(windowed))  # it is split alike, and shows its places
    left = sorted(set(range(windowed - 30)) - set(training_starts(OverlappingWindows(shape))))
    ids = lm.vocab.encode(random_content(length))
    expected = {"val_loss": np.mean([mean_loss(plain, ids[start : start + 31]) for start in left])}
    if length > 100:
        expected["unseen_loss"] = mean_loss(plain, ids[100:])
    assert losses == pytest.approx(expected, abs=1e-5)
    assert skipped == 0


def test_symbols_that_only_the_unseen_part_has_are_no_part_of_the_vocabulary_and_left_out(short_windows_text):
    seen = random_content(100, symbols="abd")
    protocol = OverlappingWindows(as_text(seen + "c" * 5 + "abd" + "e" + "ba"))
    assert protocol.vocab.symbols == "abd"
    assert protocol.split["unseen_chars"] == 5
    assert protocol.unknown_chars == 6
    lm = make_lm(vocab="abd")
    expected = lm.score("abdba").mean()
    assert protocol.epoch_losses(lm)["unseen_loss"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("rest", ["", "a", "ccc", "cac"])
def test_where_hardly_anything_is_unseen_there_is_no_loss_of_it(short_windows_text, rest):
    protocol = OverlappingWindows(as_text(random_content(100, symbols="ab") + rest))
    lm = make_lm(vocab="ab")
    losses = protocol.epoch_losses(lm)
    assert losses["unseen_loss"] is None
    assert losses["val_loss"] > 0


@pytest.mark.parametrize("length", [2, 39])
def test_a_text_too_short_for_windows_is_refused(length):
    with pytest.raises(RequestError, match=f"only {length} characters; the protocol windows needs 40"):
        OverlappingWindows(as_text(random_content(length)))


def test_ten_windows_are_enough():
    assert OverlappingWindows(as_text(random_content(40))).split["train_windows"] == 8


def test_windows_are_of_30_characters_and_no_other_length():
    protocol = OverlappingWindows(as_text(random_content(50)))
    assert protocol.seq_length(None, 128) == protocol.seq_length(30, 128) == 30
    for asked in (29, 31, 128):
        with pytest.raises(RequestError, match="windows reads 30 characters at a time; leave --seq-length out"):
            protocol.seq_length(asked, 128)


def test_a_batch_may_hold_all_windows_that_train():
    protocol = OverlappingWindows(as_text(random_content(50)))
    assert protocol.max_batch_size(30) == 16
    assert protocol.batches(16, 30, 0).steps_per_epoch == 1


@pytest.mark.skipif(
    not Path(os.environ.get("CHARLM_DATA", "nowhere"), "tinyshakespeare.txt").is_file(),
    reason="CHARLM_DATA names no folder that holds tinyshakespeare.txt",
)
def test_tinyshakespeare_has_the_windows_and_the_unseen_characters_that_the_contract_names():
    protocol = OverlappingWindows(load_text("tinyshakespeare"))
    content = Path(os.environ["CHARLM_DATA"], "tinyshakespeare.txt").read_text(encoding="utf-8")
    seen, unseen = content[:LAST_WINDOWED], content[LAST_WINDOWED:]
    assert len(unseen) == 847_064
    assert protocol.vocab.symbols == "".join(sorted(set(seen)))
    known = sum(unseen.count(symbol) for symbol in set(seen))
    assert (protocol.split["train_windows"], protocol.split["val_windows"]) == (214_640, 53_660)
    assert protocol.split["unseen_chars"] == known == 846_924
    assert protocol.unknown_chars == 140


def test_windows_cannot_be_split_otherwise():
    with pytest.raises(RequestError, match="the protocol windows has a split of its own; leave --split 0.5,0.5 out"):
        split_text(as_text(random_content(50)), "windows", "0.5,0.5")


@pytest.mark.parametrize("option", ["halves", "dynamic"])
def test_what_windows_have_no_loss_for_is_refused_before_anything_is_measured(monkeypatch, option):
    monkeypatch.setattr(OverlappingWindows, "epoch_losses", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(RequestError) as refused:
        evaluate(make_lm(), as_text(random_content(50)), "windows", **{option: True})
    assert str(refused.value) == (
        f"--{option} needs a text that is read in its order, as by the protocol holdout: leave it out"
    )


# Known symbols


@laws
@given(st.text(st.sampled_from("abcdé한😀"), max_size=30), st.sets(st.sampled_from("aceé😀z"), min_size=1), st.data())
def test_ids_in_vocab_are_those_of_the_symbols_that_a_vocabulary_has(content, known, data):
    text = as_text("ab" + content)
    vocab = Vocab("".join(data.draw(st.permutations(sorted(known)))))
    part = slice(data.draw(st.integers(0, len(text))), data.draw(st.none() | st.integers(0, len(text))))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(protocols, "IDS_PER_RECODING", data.draw(st.integers(1, 40)))
        ids, skipped = ids_in_vocab(text, part, vocab)
    kept = [symbol for symbol in ("ab" + content)[part] if symbol in known]
    assert [vocab.symbols[index] for index in ids] == kept
    assert skipped == len(("ab" + content)[part]) - len(kept)


def test_ids_of_a_large_vocabulary_take_no_more_room_than_they_need():
    text = as_text("".join(map(chr, range(0x100, 0x100 + 300))))
    for symbols, dtype in [(256, "uint8"), (257, "uint16")]:
        ids, _ = ids_in_vocab(text, slice(None), Vocab(text.encoded.symbols[:symbols][::-1]))
        assert ids.dtype == dtype
        assert ids.tolist() == list(reversed(range(symbols)))


# What is measured of a model


@pytest.mark.slow
@pytest.mark.parametrize("length", [60, 3000])
def test_the_losses_of_holdout_are_those_of_the_last_tenth_read_in_order_and_in_windows(both, length):
    lm, plain = both
    losses, skipped = evaluate(lm, as_text(random_content(length)), "holdout")
    ids = lm.vocab.encode(random_content(length)[length * 9 // 10 :])
    expected = {"val_loss": mean_loss(plain, ids), "val_loss_reset256": mean_loss(plain, ids, reset_every=256)}
    assert losses == pytest.approx(expected, abs=1e-5)
    assert skipped == 0


def test_only_the_last_tenth_is_measured():
    lm, content = make_lm(), random_content(500)
    measured, _ = evaluate(lm, as_text(content), "holdout")
    assert evaluate(lm, as_text(random_content(450, seed=9) + content[450:]), "holdout")[0] == measured


def test_characters_of_the_last_tenth_that_the_model_does_not_know_are_left_out_and_counted():
    lm, val = make_lm(), random_content(50)
    with_strangers = "€" * 9 * 53 + "€€" + val + "€"  # the last tenth of it is val and the three around it
    losses, skipped = evaluate(lm, as_text(with_strangers), "holdout")
    assert skipped == 3
    assert losses["val_loss"] == pytest.approx(lm.score(val).mean(), abs=1e-5)


def test_characters_that_the_model_does_not_know_are_left_out_of_windows_and_counted(short_windows_text):
    content = random_content(150, symbols="abde")
    lm = make_lm(vocab="abde")
    strangers = "€" + content[:49] + "€" + content[49:98] + content[98:120] + "€€€" + content[120:]
    losses, skipped = evaluate(lm, as_text(strangers), "windows")
    assert skipped == 5
    assert losses["unseen_loss"] == pytest.approx(lm.score(content[98:]).mean(), abs=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_text_of_which_the_model_knows_nothing_is_refused(protocol):
    with pytest.raises(RequestError, match="model knows no more than 0 "):
        evaluate(make_lm(), as_text("XYZ" * 100), protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_whose_losses_are_no_numbers_is_refused(protocol):
    model = make_model("rnn")
    model.weights["head.weight"][:] = 3e38
    lm = CharLM(model.config, model.weights, device="cpu")
    with pytest.raises(ModelFileError, match="not finite numbers"):
        evaluate(lm, as_text(random_content(500)), protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_denormals_are_numbers_again_after_a_model_was_measured(protocol):
    evaluate(uniform_lm("abcd"), as_text("abcd" * 50), protocol)
    assert (torch.tensor([1e-40]) * 1).item() > 0
