//! What pages of other sites may do: nothing that changes anything, unless the operator let their origin in.

use crate::node::Shared;
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderValue, ORIGIN, VARY,
};
use actix_web::{HttpRequest, HttpResponse};

/// How long a browser may remember what it was allowed, in seconds.
const REMEMBERED_S: &str = "600";

/// The origin that a browser names, if the operator let it in.
fn allowed<'a>(node: &Shared, request: &'a HttpRequest) -> Option<&'a HeaderValue> {
    let origins = &node.settings.cors_origins;
    let origin = request.headers().get(ORIGIN)?;
    origins.iter().any(|known| known == "*" || known.as_bytes() == origin.as_bytes()).then_some(origin)
}

/// Whether a browser says that another site's page made it ask, one that nobody let in.
pub(super) fn is_foreign(node: &Shared, request: &HttpRequest) -> bool {
    let headers = request.headers();
    if allowed(node, request).is_some() {
        return false;
    }
    let fetch = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let foreign_fetch = fetch.is_some_and(|site| site != b"same-origin" && site != b"none");
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let foreign_origin = headers.get(ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        origin.strip_prefix("http://").or(origin.strip_prefix("https://")) != Some(host)
    });
    foreign_fetch || foreign_origin
}

/// The answer to a browser that asks whether a page of that origin may ask something, if it may.
pub(super) fn preflight(node: &Shared, request: &HttpRequest) -> Option<HttpResponse> {
    let asks = *request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if !asks || allowed(node, request).is_none() {
        return None;
    }
    let mut response = HttpResponse::NoContent();
    response.insert_header((ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, PUT, POST, DELETE"));
    response.insert_header((ACCESS_CONTROL_MAX_AGE, REMEMBERED_S));
    if let Some(headers) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
        response.insert_header((ACCESS_CONTROL_ALLOW_HEADERS, headers.clone()));
    }
    Some(response.finish())
}

/// Has the browser show the response to the page that asked, if its origin was let in.
pub(super) fn expose(node: &Shared, request: &HttpRequest, response: &mut HttpResponse) {
    if node.settings.cors_origins.is_empty() {
        return;
    }
    let headers = response.headers_mut();
    // What is kept for one origin is not for another.
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = allowed(node, request) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    }
}
