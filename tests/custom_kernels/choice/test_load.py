"""The classes of batches, for each of which a Mac times the ways to compute an op."""

from custom_kernels.choice.op import CLASSES, Load, typical_encoders


def test_a_batch_is_of_one_of_four_classes() -> None:
    counts = (1, 64, 65, 1023, 1024, 15999, 16000, 65536)
    assert [Load.of(tokens).tokens for tokens in counts] == [16, 16, 128, 128, 4096, 4096, 16384, 16384]
    assert [Load.of(tokens).many for tokens in counts] == [False] * 4 + [True] * 4
    assert Load.of(2048, 32, True) == Load(4096, 32, True)


def test_what_is_timed_is_of_its_own_class() -> None:
    for load in map(Load, CLASSES):
        assert Load.of(load.tokens) == load
        assert Load.of(load.most) == load
    assert {load.tokens for _, _, _, load in typical_encoders()} == set(CLASSES)


def test_classes_have_names_of_their_own() -> None:
    """By which what was measured is remembered."""
    loads = [
        Load(tokens, longest, equal) for tokens in CLASSES for longest in (None, 32, 64) for equal in (False, True)
    ]
    named = {str(load): load for load in loads if load.longest is not None or not load.equal}
    assert len(named) == 4 * (1 + 2 * 2)
