"""What datasets are called where several are compared."""

from jobs.evaluation.dataset_names import unique_dataset_names


def test_names_say_what_sets_datasets_apart():
    """The size in pixels where names are the same, and the digest where that is not enough."""
    one, other, third = ("a1b2c3d4", 32), ("a1b2c3d4", 64), ("ffeeddcc", 64)
    assert unique_dataset_names({one: "birds", third: "cats"}) == {one: "birds", third: "cats"}
    assert unique_dataset_names({one: "birds", other: "birds"}) == {one: "birds, 32 px", other: "birds, 64 px"}
    assert unique_dataset_names({one: "birds", other: "birds", third: "birds"}) == {
        one: "birds, 32 px",
        other: "birds, 64 px, a1b2c3",
        third: "birds, 64 px, ffeedd",
    }
