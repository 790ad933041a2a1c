# What a program does with redis-py: the arguments are the ports of three nodes; the first goes away at `ready`.
import sys
import time
import redis

ports = [int(port) for port in sys.argv[1:]]
store = redis.Redis(port=ports[0], client_name="py", decode_responses=True)
assert store.ping() and store.client_getname() == "py"
assert store.set("a", "1") and store.get("a") == "1" and store.get("none") is None
assert store.info()["role"] == "master" and store.config_get("save") == {"save": ""}

pipe = store.pipeline(transaction=False)
for number in range(500):
    pipe.set(f"py:{number}", number)
    pipe.get(f"py:{number}")
answers = pipe.execute()
assert answers[0::2] == [True] * 500 and answers[1::2] == [str(number) for number in range(500)], answers[:9]
# What comes by itself is a transaction, which there is none: it fails, and nothing of it is done.
transaction = store.pipeline()
transaction.set("py:never", "1").incr("py:never:count")
try:
    transaction.execute()
    raise AssertionError("a transaction")
except redis.ResponseError as refused:
    assert "no transactions" in str(refused), refused
assert store.exists("py:never", "py:never:count") == 0

assert store.mset({"py:a": "x", "py:b": "y"}) and store.mget("py:a", "none", "py:b") == ["x", None, "y"]
assert sorted(store.scan_iter("py:*", count=50)) == sorted([f"py:{number}" for number in range(500)] + ["py:a", "py:b"])
assert store.delete("py:a", "py:b", "none") == 2 and store.exists("py:a") == 0

assert store.set("brief", "v", px=80) and 0 < store.pttl("brief") <= 80
deadline = time.time() + 5
while store.get("brief") is not None:
    assert time.time() < deadline
    time.sleep(0.01)
assert store.expire("a", 100) and 90 < store.ttl("a") <= 100 and store.persist("a") and store.ttl("a") == -1
assert store.incr("n", 5) == 5 and store.decr("n") == 4
try:
    store.set("a", "2", nx=True)
    raise AssertionError("a condition in mode sloppy")
except redis.ResponseError as refused:
    assert "mode sloppy" in str(refused)

# A connection has a mode of its own: a pool of one keeps it.
agreed = redis.Redis(port=ports[1], single_connection_client=True, decode_responses=True)
assert agreed.execute_command("KRINGLE.MODE", "quorum") == "OK"
assert agreed.set("lock", "me", nx=True, ex=100) and agreed.set("lock", "you", nx=True) is None
assert agreed.getset("lock", "them") == "me" and agreed.append("lock", "!") == 5 and agreed.getdel("lock") == "them!"

print("ready", flush=True)
assert sys.stdin.readline() == "killed\n"
try:
    store.get("a")
    raise AssertionError("a node that is gone has answered")
except redis.ConnectionError:
    store = redis.Redis(port=ports[1], decode_responses=True)
assert store.get("a") == "1"
assert all(store.set(f"after:{number}", number) for number in range(50)) and store.set("after", "all")
assert agreed.set("lock", "again", nx=True)
assert len(list(store.scan_iter("after:*"))) == 50
print("done", flush=True)
