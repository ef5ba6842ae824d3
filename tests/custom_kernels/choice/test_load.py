"""The classes of batches, for each of which a Mac times the ways to compute an op."""

from custom_kernels.choice.op import Load, typical_encoders


def test_a_batch_has_few_tokens_or_many() -> None:
    assert [Load.of(tokens).many for tokens in (1, 128, 1023, 1024, 65536)] == [False, False, False, True, True]
    assert Load.of(2048, 32, True) == Load(True, 32, True)


def test_what_is_timed_is_of_its_own_class() -> None:
    for load in (Load(False), Load(True)):
        assert Load.of(load.tokens) == load
    assert {load.many for _, _, _, load in typical_encoders()} == {False, True}


def test_classes_have_names_of_their_own() -> None:
    """By which what was measured is remembered."""
    loads = [
        Load(many, longest, equal) for many in (False, True) for longest in (None, 32, 64) for equal in (False, True)
    ]
    named = {str(load): load for load in loads if load.longest is not None or not load.equal}
    assert len(named) == 2 * (1 + 2 * 2)
