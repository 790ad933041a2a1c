//! The HTTP face of a node: extract, convert, call, convert.
//!
//! | file | for |
//! | --- | --- |
//! | `routes` | the one table of URLs and methods |
//! | `refuse` | the one place where errors become status codes |
//! | `input` | paths, queries, bodies, and their limits |
//! | `ask` | what a request says of its wish, and the parts of an answer |
//! | `condition` | entity tags, and requests that depend on them |
//! | `list` | the keys there are |
//! | `cursor` | where a list goes on |
//! | `batch` | many wishes in one request |
//! | `backup` | what this node holds, and what is brought back |
//! | `lines` | answers of many lines |
//! | `kv` | raw bytes under `/kv/{key}` |
//! | `counters` | integers that are added to |
//! | `store` | the JSON endpoints, and the plain-text aliases |
//! | `peer` | what other nodes ask |
//! | `cluster` | who is a member, and what is to become of that |
//! | `moving` | what moves between owners, and what would |
//! | `faults` | the network between nodes, cut on purpose |
//! | `admin` | ring, status, health, sessions on request |
//! | `watch` | who watches keys, and what happens to nodes |
//! | `told` | how what is told is written down |
//! | `server` | listening, serving, stopping in order |
//! | `stream` | a client's connection |
//! | `cors` | what pages of other sites may do |
//! | `bare` | what the HTTP server refuses by itself, and how that becomes an error like all others |

mod admin;
mod ask;
mod backup;
mod bare;
mod batch;
mod cluster;
mod condition;
mod cors;
mod counters;
mod cursor;
mod faults;
mod input;
mod kv;
mod lines;
mod list;
mod moving;
mod peer;
mod refuse;
mod routes;
mod server;
mod store;
mod stream;
mod told;
mod watch;

pub use server::{Address, RunError, ask_health, run};

use crate::node::Worker;
use crate::protocol::FeedOf;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::Method;
use actix_web::http::header::{CONNECTION, HeaderValue};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use refuse::ApiError;
use routes::Route;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sets up an app: the same for production and for tests. `serving` counts the requests being served.
pub fn configure(config: &mut web::ServiceConfig, worker: Rc<Worker>, serving: Arc<AtomicUsize>) {
    config.app_data(Rc::new(Face { worker, serving })).default_service(web::to(dispatch));
}

/// What every request needs.
struct Face {
    worker: Rc<Worker>,
    serving: Arc<AtomicUsize>,
}

/// Counts a request for as long as it is served, so that stopping can wait for it.
struct Serving<'a>(&'a AtomicUsize);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn dispatch(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let Some(face) = request.app_data::<Rc<Face>>().cloned() else {
        return HttpResponse::InternalServerError().finish();
    };
    let Face { worker, serving } = &*face;
    serving.fetch_add(1, Ordering::SeqCst);
    let _serving = Serving(serving);
    let mut response = match kv::get_at_hand(worker, &request) {
        Some(response) => {
            worker.node.foreground.note();
            worker.count(1, 0, bytes_of(&response));
            response
        }
        // In a box: the futures of a write are large, and whatever lies in this one is moved about with every read.
        None => match Box::pin(serve(worker, serving, &request, payload)).await {
            Ok(response) => response,
            Err(error) => {
                let unread = request.extensions_mut().remove::<input::Unread>();
                let response = error.into_response();
                match unread {
                    Some(unread) => unread.kept_behind(response),
                    None => response,
                }
            }
        },
    };
    cors::expose(&worker.node, &request, &mut response);
    if worker.node.is_stopping() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn serve(
    worker: &Rc<Worker>,
    serving: &Arc<AtomicUsize>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    if let Some(response) = cors::preflight(&worker.node, request) {
        return Ok(response);
    }
    let (route, rest) = routes::find(request.head().uri.path())?;
    let method = request.method();
    routes::allow(route, method)?;
    let is_post = *method == Method::POST;
    let is_for_clients = routes::is_for_clients(route, method);
    if is_for_clients {
        worker.node.foreground.note();
    }
    if routes::changes_the_cluster(route, method) && cors::is_foreign(&worker.node, request) {
        return Err(ApiError::CrossSite);
    }
    let answered = match route {
        Route::List => list::serve(worker, request, serving).await,
        Route::Batch => batch::serve(worker, request, payload, serving).await,
        Route::Kv => kv::serve(worker, request, payload, rest).await,
        Route::Counters => counters::serve(worker, request, payload, rest).await,
        Route::Ping if is_post => peer::serve(worker, request, payload).await,
        Route::Ping => admin::ping(worker),
        Route::Store => store::put(worker, request, payload).await,
        Route::StoreKey if is_post => peer::serve(worker, request, payload).await,
        Route::StoreKey => store::key(worker, request, payload).await,
        Route::StoreHash if is_post => peer::serve(worker, request, payload).await,
        Route::StoreHash => admin::hash(worker, request),
        Route::Sync => admin::sync(worker, request).await,
        Route::Replicate => peer::replicate(worker, request, payload).await,
        Route::Put => store::plain_put(worker, request, payload).await,
        Route::Get => store::plain_get(worker, request).await,
        Route::Ring => admin::ring(worker, request),
        Route::Cluster if is_post => peer::serve(worker, request, payload).await,
        Route::Cluster => cluster::show(worker, request).await,
        Route::ClusterMode => cluster::set_mode(worker, request, payload).await,
        Route::Config if is_post => cluster::set_mode(worker, request, payload).await,
        Route::Config => cluster::config(worker, request),
        Route::ClusterReplicas => cluster::set_replicas(worker, request, payload).await,
        Route::ClusterJoin => cluster::join(worker, request, payload).await,
        Route::ClusterAbandon => cluster::abandon(worker, request, payload).await,
        Route::ClusterRemove => cluster::remove(worker, request, payload).await,
        Route::ClusterReplace => cluster::replace(worker, request, payload).await,
        Route::ClusterMember => cluster::set_member(worker, request, payload, rest).await,
        Route::ClusterLeave => cluster::leave(worker, request, payload).await,
        Route::ClusterDrain => cluster::drain(worker, request, payload).await,
        Route::Faults if *method == Method::PUT => faults::set(worker, request, payload).await,
        Route::Faults => faults::show(worker, request),
        Route::Watch => watch::serve(worker, request, FeedOf::Changes).await,
        Route::WatchEvents => watch::serve(worker, request, FeedOf::Events).await,
        Route::Backup => backup::copies(worker, request).await,
        Route::Restore => backup::restore(worker, request, payload).await,
        Route::Status => admin::status(worker),
        Route::Health => admin::health(),
        Route::Readyz => admin::ready(worker, request),
    };
    // A batch counts its own lines.
    if is_for_clients && route != Route::Batch {
        let sent = answered.as_ref().ok().filter(|_| *method != Method::HEAD);
        worker.count(1, input::bytes_of(request), sent.map_or(0, bytes_of));
    }
    answered
}

/// How many bytes the body of an answer has, where that is known before it is sent.
fn bytes_of(response: &HttpResponse) -> u64 {
    match response.body().size() {
        BodySize::Sized(bytes) => bytes,
        BodySize::None | BodySize::Stream => 0,
    }
}
