"""Version numbers of the wire as RocketMQ names them."""

from __future__ import annotations

import pytest

from shmq.admin.consumer import version_text


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (121, "121"),
        (213, "V4_0_0"),
        (293, "V4_4_0"),
        (407, "V4_9_7"),
        (413, "V5_0_0"),
        (478, "V5_3_3_SNAPSHOT"),
        (479, "V5_3_3"),
    ],
)
def test_a_version_number_has_rocketmqs_name(number: int, name: str) -> None:
    assert version_text(number) == name
