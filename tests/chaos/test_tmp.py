import pytest
from support.crowd import Crowd
from support.stage import AOF

V = {
 "full": (("full",), False),
 "restart": ((), True),
 "full+restart": (("full",), True),
 "fullfull": (("full","full"), False),
 "start": (("start",), False),
 "pauseresume": (("pause","resume"), False),
 "pausefullresume": (("pause","full","resume"), False),
 "fullpausefullresume": (("full", "pause","full","resume"), False),
}
@pytest.mark.timeout(60)
@pytest.mark.parametrize("n", range(6))
@pytest.mark.parametrize("v", V)
def test_tmp(stage, v, n):
    actions, restart = V[v]
    scene = stage(mirror=AOF, keys=3_000, rate=5_000)
    with Crowd(scene.proxy.port, seed=n) as crowd:
        crowd.acknowledges(300)
        for action in actions:
            scene.order(action)
            crowd.acknowledges(100)
        if restart:
            b = scene.replica()["restarts_total"]
            scene.mirror.restart()
            scene.until(lambda now: now["restarts_total"] > b, "x")
        scene.until_in_sync()
    scene.assert_healed(crowd)
