"""What the extension adds to moto, where the guard's own tests would not notice that it is missing."""

import pytest
from botocore.exceptions import ClientError

from e2e.world import DISCARD, OTHER_ACCOUNT, World


def refusal(call, **request) -> str:
    """The code with which a call is refused."""
    with pytest.raises(ClientError) as error:
        call(**request)
    return error.value.response["Error"]["Code"]


@pytest.mark.parametrize(
    ("image", "code"),
    [
        pytest.param(
            {"deregistration_protection": "enabled-with-cooldown"}, "OperationNotPermitted", id="protected"
        ),
        pytest.param(
            {"tags": {"aws:backup:source-resource": "i-0"}}, "AuthFailure", id="managed by AWS Backup"
        ),
        pytest.param({"owner_id": OTHER_ACCOUNT}, "AuthFailure", id="somebody else's"),
    ],
)
def test_what_ec2_does_not_let_go_stays(world: World, image, code):
    ami = world.image(**image)

    assert refusal(world.ec2.deregister_image, ImageId=ami) == code
    assert world.exists(ami)


def test_an_image_shows_late_and_only_as_long_as_it_was_told(world: World):
    ami = world.image(invisible_for=2)

    for _ in range(2):
        assert refusal(world.ec2.describe_images, ImageIds=[ami]) == "InvalidAMIID.NotFound"
    assert len(world.ec2.describe_images(ImageIds=[ami])["Images"]) == 1


def test_only_an_image_with_the_rules_pair_of_key_and_value_is_kept(world: World):
    for value, kept in (("true", 1), ("false", 0)):
        ami = world.image(tags={DISCARD: value})
        world.ec2.deregister_image(ImageId=ami)
        assert len(world.ec2.list_images_in_recycle_bin(ImageIds=[ami])["Images"]) == kept


def test_snapshots_go_with_the_image_only_if_the_caller_asks(world: World):
    for asked in (False, True):
        ami = world.image()
        snapshot = world.root_snapshot(ami)
        world.ec2.deregister_image(ImageId=ami, DeleteAssociatedSnapshots=asked)
        assert world.snapshot_exists(snapshot) is not asked


def test_a_fault_hits_as_often_as_it_was_told(world: World):
    world.fail("DescribeImages", "RequestLimitExceeded", status=503, times=2)

    for _ in range(2):
        assert refusal(world.ec2.describe_images) == "RequestLimitExceeded"
    assert world.ec2.describe_images()["Images"] == []
