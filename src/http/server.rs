//! Listening, serving, and stopping in order.

use super::stream::{ClientStream, LINGER_MAX};
use crate::config::Settings;
use crate::node::{Node, Shared, StartError, Worker, own_address};
use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol};
use actix_server::{Server, ServerBuilder};
use actix_service::{ServiceFactoryExt, fn_service, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use actix_web::rt::signal::unix::{SignalKind, signal};
use std::cell::RefCell;
#[cfg(feature = "resp")]
use std::convert::Infallible;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long an idle client connection is kept. Longer than peers keep theirs idle, so that they close first.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client may take to send the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long stopping waits for requests that are being served.
const DRAIN_MAX: Duration = Duration::from_secs(8);
/// How long nobody must have been served before the node believes it is drained.
const DRAIN_QUIET: Duration = Duration::from_millis(150);
/// Threads of a worker that look up what is not in memory, beside those for work in the background. Each look-up takes microseconds unless the disk is slow, so
/// more threads would mostly wake one another: with 50 look-ups waiting, 50 threads cost a third more than few.
const READERS: usize = 4;
/// Connections the kernel holds ready for us.
const BACKLOG: i32 = 1_024;

/// Why a node did not start, or ended badly. One line, exit 1.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The port cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        error: std::io::Error,
    },
    /// A port was named for a protocol that was left out when this program was built.
    #[error("--resp-port: this program was built without the feature resp")]
    NoResp,
    /// The node cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server broke.
    #[error("the server failed: {0}")]
    Server(std::io::Error),
}

/// Where a node that runs can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The URL for HTTP.
    pub url: String,
    /// Host and port for clients that speak the Redis protocol, where there is one.
    pub resp: Option<(String, u16)>,
}

/// Runs a node until it is told to stop. `announce` is given the address it listens on, once clients can use it.
pub fn run(mut settings: Settings, announce: impl FnOnce(&Address)) -> Result<(), RunError> {
    let (listener, port) = listen(&settings, settings.port)?;
    let resp = match settings.resp_port {
        None => None,
        Some(_) if !cfg!(feature = "resp") => return Err(RunError::NoResp),
        Some(port) => Some(listen(&settings, port)?),
    };
    let resp_port = resp.as_ref().map(|(_, port)| *port);
    let host = settings.host.for_socket();
    let url = format!("http://{}:{port}", settings.host);
    if settings.finds_own_address() {
        settings.advertise = Some(own_address(&settings).ok_or(StartError::Address)?);
    }
    let node = Node::start(settings, port)?;
    let address = Address { url, resp: resp_port.map(|port| (host, port)) };
    let resp = resp.map(|(listener, _)| listener);
    let served = actix_web::rt::System::new().block_on(serve(&node, listener, resp, || announce(&address)));
    node.stop();
    served.map_err(RunError::Server)
}

/// Listens on a port of the node's address; the port, which is another where any was asked for.
fn listen(settings: &Settings, port: u16) -> Result<(TcpListener, u16), RunError> {
    let address = format!("{}:{port}", settings.host.for_socket());
    let failed = |error| RunError::Listen { address: address.clone(), error };
    let listener = TcpListener::bind(&address).map_err(failed)?;
    rustix::net::listen(&listener, BACKLOG).map_err(|error| failed(error.into()))?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}

std::thread_local! {
    static WORKER: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
}

/// The calling thread's worker, which all its clients share, whatever they speak.
fn worker_of_this_thread(node: &Arc<Shared>) -> Rc<Worker> {
    WORKER.with_borrow_mut(|worker| worker.get_or_insert_with(|| Worker::start(node.clone())).clone())
}

async fn serve(
    node: &Node,
    listener: TcpListener,
    resp: Option<TcpListener>,
    announce: impl FnOnce(),
) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let settings = &node.shared.settings;
    let serving = Arc::new(AtomicUsize::new(0));
    let (shared, count) = (node.shared.clone(), serving.clone());
    // Not actix_web's own server, which would not let us have the connections.
    let mut server = Server::build()
        .workers(settings.workers)
        .max_concurrent_connections(settings.connections_max.div_ceil(settings.workers))
        .worker_max_blocking_threads(READERS + node.shared.aside.places())
        .disable_signals()
        .listen("clients", listener, move || {
            let (worker, count) = (worker_of_this_thread(&shared), count.clone());
            let app = App::new().configure(move |config| super::configure(config, worker, count));
            // The default tells the app an address of its own, which nobody asks it for.
            let app = map_config(app, |()| AppConfig::default());
            let http = HttpService::build()
                .keep_alive(KEEP_ALIVE)
                .client_request_timeout(HEAD_TIME_MAX)
                .client_disconnect_timeout(LINGER_MAX)
                .finish(app);
            fn_service(|socket: TcpStream| async {
                // A connection without it still works, only slower.
                let _ = socket.set_nodelay(true);
                let client = socket.peer_addr().ok();
                Ok::<_, DispatchError>((ClientStream::new(socket), Protocol::Http1, client))
            })
            .and_then(http)
        })?;
    if let Some(listener) = resp {
        server = listen_for_resp(server, listener, node.shared.clone(), serving.clone())?;
    }
    let server = server.run();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    let _worker = node.start_loops();
    announce();
    tokio::select! {
        _ = terminate.recv() => node.shared.events.info("stop", "told to stop: draining"),
        _ = interrupt.recv() => node.shared.events.info("stop", "interrupted: draining"),
    }
    node.shared.begin_stopping();
    handle.pause().await;
    drain(&serving).await;
    handle.stop(false).await;
    running.await.unwrap_or(Ok(()))
}

/// Clients that speak the Redis protocol, on the same threads.
#[cfg(feature = "resp")]
fn listen_for_resp(
    server: ServerBuilder,
    listener: TcpListener,
    node: Arc<Shared>,
    serving: Arc<AtomicUsize>,
) -> std::io::Result<ServerBuilder> {
    let clients = Arc::<crate::resp::Clients>::default();
    server.listen("redis clients", listener, move || {
        let (worker, clients, serving) = (worker_of_this_thread(&node), clients.clone(), serving.clone());
        fn_service(move |socket: TcpStream| {
            let (worker, clients, serving) = (worker.clone(), clients.clone(), serving.clone());
            async move {
                crate::resp::serve(worker, clients, serving, socket).await;
                Ok::<_, Infallible>(())
            }
        })
    })
}

/// There is none: [`run`] has refused it.
#[cfg(not(feature = "resp"))]
fn listen_for_resp(
    server: ServerBuilder,
    _: TcpListener,
    _: Arc<Shared>,
    _: Arc<AtomicUsize>,
) -> std::io::Result<ServerBuilder> {
    Ok(server)
}

/// Waits until no request has been served for a moment; those that come meanwhile are told to close.
async fn drain(serving: &AtomicUsize) {
    let begun = Instant::now();
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < DRAIN_QUIET && begun.elapsed() < DRAIN_MAX {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if serving.load(Ordering::SeqCst) > 0 {
            quiet_since = Instant::now();
        }
    }
}

/// Asks the node at `url` whether it is alive. The error is a line for people.
pub fn ask_health(url: &str, timeout: Duration) -> Result<(), String> {
    actix_web::rt::System::new().block_on(async {
        let client = awc::Client::builder().timeout(timeout).disable_redirects().finish();
        match client.get(format!("{url}/healthz")).send().await {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(format!("{url} answers {}", response.status())),
            Err(error) => Err(format!("{url}: {error}")),
        }
    })
}
