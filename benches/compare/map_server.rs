//! What a node is measured against: the same HTTP server, set up the same way, answering from a map in memory.
//!
//! It runs as a process of its own: this bench, started with a hidden argument.

use actix_web::http::Method;
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::RwLock;
use std::time::Duration;

/// Turns this bench into the server.
pub const HIDDEN_ARGUMENT: &str = "--serve-map";

const SHARDS: usize = 64;

struct Map {
    hasher: RandomState,
    shards: Vec<RwLock<HashMap<Box<[u8]>, Bytes>>>,
}

impl Map {
    fn shard(&self, key: &[u8]) -> &RwLock<HashMap<Box<[u8]>, Bytes>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

/// Serves until killed.
pub fn main(workers: usize) -> ExitCode {
    match serve(workers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(workers: usize) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("http://{}", listener.local_addr()?);
    let map =
        web::Data::new(Map { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| RwLock::default()).collect() });
    actix_web::rt::System::new().block_on(
        HttpServer::new(move || App::new().app_data(map.clone()).default_service(web::to(answer)))
            .workers(workers)
            .keep_alive(Duration::from_secs(75))
            .on_connect(|stream, _| {
                if let Some(stream) = stream.downcast_ref::<TcpStream>() {
                    let _ = stream.set_nodelay(true);
                }
            })
            .listen(listener)?
            .run(),
    )
}

async fn answer(request: HttpRequest, map: web::Data<Map>, body: Bytes) -> HttpResponse {
    let Some(key) = request.path().strip_prefix("/kv/") else { return HttpResponse::NotFound().finish() };
    let shard = map.shard(key.as_bytes());
    if *request.method() == Method::PUT {
        let mut shard = shard.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        // A copy, or the value would keep the whole buffer it came in.
        shard.insert(key.as_bytes().into(), Bytes::copy_from_slice(&body));
        return HttpResponse::NoContent().finish();
    }
    let value = shard.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(key.as_bytes()).cloned();
    match value {
        Some(value) => HttpResponse::Ok().body(value),
        None => HttpResponse::NotFound().finish(),
    }
}
