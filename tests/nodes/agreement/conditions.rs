//! Entity tags, and requests that depend on them.

use super::support::cluster::Cluster;
use super::support::http::{Answer, Request};
use serde_json::json;

fn put(cluster: &Cluster, index: usize, path: &str, condition: (&str, &str), value: &str) -> Answer {
    let request = Request::new("PUT", path).header(condition.0, condition.1).body(value);
    cluster.client(index).send(&request)
}

#[test]
fn a_condition_is_met_by_the_version_it_names_and_by_no_other_whatever_mode_shows_it() {
    let cluster = Cluster::start(3, &["--timeout", "3"]);
    for mode in super::MODES {
        let (path, shown) = (format!("/kv/{mode}?mode=quorum"), format!("/kv/{mode}?mode={mode}"));
        let absent = put(&cluster, 0, &path, ("if-match", "*"), "x").refusal(412);
        assert!(absent.header("etag").is_none(), "{absent}");
        let first = put(&cluster, 0, &path, ("if-none-match", "*"), "first").expect(201);
        let taken = put(&cluster, 1, &path, ("if-none-match", "*"), "second").refusal(412);
        assert_eq!(taken.must("etag"), first.must("etag"));
        let second = put(&cluster, 2, &path, ("if-match", first.must("etag")), "second").expect(204);
        assert_ne!(second.must("etag"), first.must("etag"));
        let stale = put(&cluster, 0, &path, ("if-match", first.must("etag")), "third").refusal(412);
        assert_eq!(stale.must("etag"), second.must("etag"));
        let read = cluster.client(1).get(&shown).expect(200);
        assert_eq!((read.text(), read.must("etag")), ("second".into(), second.must("etag")));
        put(&cluster, 0, &path, ("if-match", "*"), "third").expect(204);
        let third = cluster.client(2).get(&shown).expect(200);
        let delete = |etag: &str| Request::new("DELETE", path.as_str()).header("if-match", etag);
        cluster.client(0).send(&delete(second.must("etag"))).refusal(412);
        cluster.client(1).send(&delete(third.must("etag"))).expect(204);
        let gone = cluster.client(2).send(&delete(third.must("etag"))).refusal(412);
        assert!(gone.header("etag").is_none(), "{gone}");
        put(&cluster, 2, &path, ("if-none-match", "*"), "anew").expect(201);
    }
}

#[test]
fn the_json_endpoints_and_counters_take_conditions_as_well() {
    let cluster = Cluster::start(1, &[]);
    let store = |condition: (&str, &str), value: &str| {
        let body = json!({ "key": "k", "value": value });
        let request = Request::new("POST", "/store?mode=quorum").json(&body).header(condition.0, condition.1);
        cluster.client(0).send(&request)
    };
    store(("if-none-match", "*"), "1").expect(201);
    store(("if-none-match", "*"), "2").refusal(412);
    let etag = cluster.client(0).get("/kv/k").expect(200).must("etag").to_owned();
    store(("if-match", &etag), "3").expect(200);
    let add = |etag: &str| Request::new("POST", "/counters/k?mode=quorum").header("if-match", etag);
    cluster.client(0).send(&add(&etag)).refusal(412);
    let etag = cluster.client(0).get("/kv/k").expect(200).must("etag").to_owned();
    assert_eq!(cluster.client(0).send(&add(&etag)).expect(200).json()["value"], 4);
    let delete = Request::new("DELETE", "/store/key?key=k&mode=quorum").header("if-match", etag);
    cluster.client(0).send(&delete).refusal(412);
}

#[test]
fn a_reader_that_has_the_version_already_is_told_so_in_every_mode() {
    let cluster = Cluster::start(3, &["--timeout", "3"]);
    for mode in ["sloppy", "async", "quorum", "sync", "chain"] {
        let path = format!("/kv/{mode}?mode={mode}");
        let etag = cluster.client(0).put(&path, "v").expect(201).must("etag").to_owned();
        let get = |known: &str| Request::new("GET", path.as_str()).header("if-none-match", known);
        for known in [etag.as_str(), "*", &format!("\"other\", {etag}")] {
            let known = cluster.client(0).send(&get(known)).expect(304);
            assert_eq!((known.must("etag"), known.body.len()), (etag.as_str(), 0), "{mode}");
        }
        assert_eq!(cluster.client(0).send(&get("\"other\"")).expect(200).text(), "v");
        cluster.client(0).delete(&path).expect(204);
        cluster.client(0).send(&get("*")).expect(404);
    }
}

#[test]
fn conditions_that_cannot_be_judged_are_refused_and_store_nothing() {
    let cluster = Cluster::start(1, &[]);
    for mode in ["sloppy", "async", "sync", "chain"] {
        let path = format!("/kv/k?mode={mode}");
        let refused = put(&cluster, 0, &path, ("if-none-match", "*"), "v").refusal(400);
        assert!(refused.json()["hint"].as_str().is_some_and(|hint| hint.contains("?mode=quorum")), "{refused}");
        let delete = Request::new("DELETE", path).header("if-match", "*");
        cluster.client(0).send(&delete).refusal(400);
    }
    let nonsense = [
        ("if-match", "abc"),
        ("if-match", "\"abc\""),
        ("if-match", ""),
        ("if-none-match", "\"abc\""),
        ("if-match", "é"),
    ];
    for condition in nonsense {
        put(&cluster, 0, "/kv/k?mode=quorum", condition, "v").refusal(400);
    }
    let both = Request::new("PUT", "/kv/k?mode=quorum").header("if-match", "*").header("if-none-match", "*").body("v");
    cluster.client(0).send(&both).refusal(400);
    for (method, path) in
        [("PUT", "/kv/k?mode=quorum&w=1"), ("GET", "/kv/k?mode=chain&r=1"), ("PUT", "/kv/k?mode=strong")]
    {
        cluster.client(0).send(&Request::new(method, path).body("v")).refusal(400);
    }
    cluster.client(0).get("/kv/k").expect(404);
}
