from shipper.shipping.pause import Pauses, full_jitter


def longest(limit_sec):
    return limit_sec


def test_pauses_grow_up_to_the_longest_and_begin_anew():
    pauses = Pauses(5, 60, longest)
    assert [pauses.next_sec() for _ in range(6)] == [5, 10, 20, 40, 60, 60]
    pauses.reset()
    assert pauses.next_sec() == 5


def test_no_pause_is_ever_longer_than_the_longest():
    assert Pauses(5, 3, longest).next_sec() == 3


def test_jitter_is_full():
    drawn = [full_jitter(10) for _ in range(2000)]
    assert min(drawn) < 1
    assert max(drawn) > 9
    assert all(0 <= one <= 10 for one in drawn)


def test_jitter_goes_into_every_pause():
    assert Pauses(8, 60, lambda limit_sec: limit_sec / 4).next_sec() == 2
