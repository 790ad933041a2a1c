//! Listening, serving, and stopping in order.

use super::stream::{ClientStream, LINGER_MAX};
use crate::config::Settings;
use crate::node::{Node, StartError, Worker, own_address};
use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol};
use actix_server::Server;
use actix_service::{ServiceFactoryExt, fn_service, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use actix_web::rt::signal::unix::{SignalKind, signal};
use std::net::TcpListener;
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
    /// The node cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server broke.
    #[error("the server failed: {0}")]
    Server(std::io::Error),
}

/// Runs a node until it is told to stop. `announce` is given the address it listens on, once clients can use it.
pub fn run(mut settings: Settings, announce: impl FnOnce(&str)) -> Result<(), RunError> {
    let address = format!("{}:{}", settings.host.for_socket(), settings.port);
    let listen = |error| RunError::Listen { address: address.clone(), error };
    let listener = TcpListener::bind(&address).map_err(listen)?;
    rustix::net::listen(&listener, BACKLOG).map_err(|error| listen(error.into()))?;
    let port = listener.local_addr().map_err(listen)?.port();
    let url = format!("http://{}:{port}", settings.host);
    if settings.finds_own_address() {
        settings.advertise = Some(own_address(&settings).ok_or(StartError::Address)?);
    }
    let node = Node::start(settings, port)?;
    let served = actix_web::rt::System::new().block_on(serve(&node, listener, || announce(&url)));
    node.stop();
    served.map_err(RunError::Server)
}

async fn serve(node: &Node, listener: TcpListener, announce: impl FnOnce()) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let settings = &node.shared.settings;
    let serving = Arc::new(AtomicUsize::new(0));
    let (shared, count) = (node.shared.clone(), serving.clone());
    // Not actix_web's own server, which would not let us have the connections.
    let server = Server::build()
        .workers(settings.workers)
        .max_concurrent_connections(settings.connections_max.div_ceil(settings.workers))
        .worker_max_blocking_threads(READERS + node.shared.aside.places())
        .disable_signals()
        .listen("clients", listener, move || {
            let (worker, count) = (Worker::start(shared.clone()), count.clone());
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
        })?
        .run();
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
