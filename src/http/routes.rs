//! The one table of URLs. Matched by hand: the hot path is a prefix, and a key may hold any byte.

use super::refuse::ApiError;
use actix_web::http::Method;

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    Kv,
    List,
    Batch,
    Counters,
    Ping,
    Store,
    StoreKey,
    StoreHash,
    Sync,
    Replicate,
    Put,
    Get,
    Ring,
    Cluster,
    ClusterMode,
    ClusterReplicas,
    ClusterJoin,
    ClusterLeave,
    ClusterDrain,
    ClusterAbandon,
    ClusterRemove,
    ClusterReplace,
    ClusterMember,
    Config,
    Faults,
    Watch,
    WatchEvents,
    Backup,
    Restore,
    Status,
    Health,
    Readyz,
}

/// Path, route, methods. GET allows HEAD wherever it stands.
const TABLE: &[(&str, Route, &[Method])] = &[
    ("/kv", Route::List, &[Method::GET, Method::HEAD]),
    ("/batch", Route::Batch, &[Method::POST]),
    ("/ping", Route::Ping, &[Method::GET, Method::HEAD, Method::POST]),
    ("/store", Route::Store, &[Method::POST]),
    ("/store/key", Route::StoreKey, &[Method::GET, Method::HEAD, Method::DELETE, Method::POST]),
    ("/store/hash", Route::StoreHash, &[Method::GET, Method::HEAD, Method::POST]),
    ("/sync", Route::Sync, &[Method::POST]),
    ("/replicate", Route::Replicate, &[Method::POST]),
    ("/put", Route::Put, &[Method::GET, Method::POST, Method::PUT]),
    ("/get", Route::Get, &[Method::GET, Method::HEAD]),
    ("/ring", Route::Ring, &[Method::GET, Method::HEAD]),
    ("/cluster", Route::Cluster, &[Method::GET, Method::HEAD, Method::POST]),
    ("/cluster/mode", Route::ClusterMode, &[Method::PUT]),
    ("/cluster/replicas", Route::ClusterReplicas, &[Method::PUT]),
    ("/cluster/join", Route::ClusterJoin, &[Method::POST]),
    ("/cluster/leave", Route::ClusterLeave, &[Method::POST]),
    ("/cluster/drain", Route::ClusterDrain, &[Method::POST]),
    ("/cluster/abandon", Route::ClusterAbandon, &[Method::POST]),
    ("/cluster/remove", Route::ClusterRemove, &[Method::POST]),
    ("/cluster/replace", Route::ClusterReplace, &[Method::POST]),
    ("/config", Route::Config, &[Method::GET, Method::HEAD, Method::POST]),
    ("/faults", Route::Faults, &[Method::GET, Method::HEAD, Method::PUT]),
    ("/watch", Route::Watch, &[Method::GET]),
    ("/watch/events", Route::WatchEvents, &[Method::GET]),
    ("/backup", Route::Backup, &[Method::GET]),
    ("/restore", Route::Restore, &[Method::POST]),
    ("/status", Route::Status, &[Method::GET, Method::HEAD]),
    ("/health", Route::Health, &[Method::GET, Method::HEAD]),
    ("/healthz", Route::Health, &[Method::GET, Method::HEAD]),
    ("/readyz", Route::Readyz, &[Method::GET, Method::HEAD]),
];

/// What `/kv/{key…}` takes.
const KV_METHODS: &[Method] = &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE];

/// What `/counters/{key…}` takes.
const COUNTER_METHODS: &[Method] = &[Method::GET, Method::HEAD, Method::POST];

/// What `/cluster/members/{id}` takes.
const MEMBER_METHODS: &[Method] = &[Method::PUT];

/// The route of a raw path, and what follows the `/kv/` or `/counters/` of a key, or what calls a member, still percent-encoded.
pub(super) fn find(path: &str) -> Result<(Route, &str), ApiError> {
    if let Some(key) = path.strip_prefix("/kv/") {
        return Ok((Route::Kv, key));
    }
    if let Some(key) = path.strip_prefix("/counters/") {
        return Ok((Route::Counters, key));
    }
    if let Some(member) = path.strip_prefix("/cluster/members/") {
        return Ok((Route::ClusterMember, member));
    }
    match TABLE.iter().find(|(known, ..)| *known == path) {
        Some((_, route, _)) => Ok((*route, "")),
        None => Err(ApiError::NoSuchPath),
    }
}

/// Whether it is an operator who asks for a change of the layout, of the network, or of whatever the cluster holds.
pub(super) fn changes_the_cluster(route: Route, method: &Method) -> bool {
    let is_change = matches!(method, &Method::PUT | &Method::POST);
    is_change
        && matches!(
            route,
            Route::ClusterMode
                | Route::ClusterReplicas
                | Route::ClusterJoin
                | Route::ClusterLeave
                | Route::ClusterDrain
                | Route::ClusterAbandon
                | Route::ClusterRemove
                | Route::ClusterReplace
                | Route::ClusterMember
                | Route::Config
                | Route::Faults
                | Route::Restore
        )
}

/// Whether it is a client who asks for that, for a value or with one. A list of keys is not among them: it gives way to all
/// these, and would to itself.
pub(super) fn is_for_clients(route: Route, method: &Method) -> bool {
    match route {
        Route::Kv | Route::Batch | Route::Counters | Route::Store | Route::Put | Route::Get => true,
        Route::StoreKey => method != Method::POST,
        _ => false,
    }
}

/// Whether the route takes the method.
pub(super) fn allow(route: Route, method: &Method) -> Result<(), ApiError> {
    let methods = match route {
        Route::Kv => KV_METHODS,
        Route::Counters => COUNTER_METHODS,
        Route::ClusterMember => MEMBER_METHODS,
        _ => TABLE.iter().find(|(_, known, _)| *known == route).map_or(KV_METHODS, |(.., methods)| methods),
    };
    if methods.contains(method) {
        return Ok(());
    }
    let allow: Vec<&str> = methods.iter().map(Method::as_str).collect();
    Err(ApiError::WrongMethod { allow: allow.join(", ") })
}

/// The paths, for the hint of an unknown one.
pub(super) fn paths() -> String {
    let mut paths: Vec<&str> = TABLE.iter().map(|(path, ..)| *path).collect();
    paths.extend(["/kv/{key}", "/counters/{key}", "/cluster/members/{id}"]);
    paths.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_everything_behind_the_prefix() {
        assert_eq!(find("/kv/a/b%2Fc").ok(), Some((Route::Kv, "a/b%2Fc")));
        assert_eq!(find("/kv/").ok(), Some((Route::Kv, "")));
        assert_eq!(find("/kv").ok(), Some((Route::List, "")));
        assert!(matches!(find("/batch/"), Err(ApiError::NoSuchPath)));
        assert!(matches!(find("/ping/"), Err(ApiError::NoSuchPath)));
    }

    #[test]
    fn a_refused_method_names_the_allowed_ones() {
        let refused = allow(Route::Store, &Method::GET);
        assert!(matches!(refused, Err(ApiError::WrongMethod { allow }) if allow == "POST"));
        assert!(allow(Route::Kv, &Method::PUT).is_ok());
    }
}
