from shipper.status.recent_rate import WINDOW_SEC, RecentRate


def test_rate_is_of_the_last_minute():
    now = [100.0]
    rate = RecentRate(lambda: now[0])
    assert rate.per_sec() is None
    now[0] += 10
    rate.add(500)
    assert rate.per_sec() == 50
    now[0] += WINDOW_SEC - 5
    rate.add(100)
    assert rate.per_sec() == 600 / WINDOW_SEC
    now[0] += 5
    assert rate.per_sec() == 100 / WINDOW_SEC
    now[0] += WINDOW_SEC
    assert rate.per_sec() is None
