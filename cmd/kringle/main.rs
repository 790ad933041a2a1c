//! `kringle`: a node, `kringle health` and `kringle demo`. Arguments and exit codes; everything else is the library's, but
//! for the demo, which is a program of its own.

mod demo;

use kringle::config::{Load, LogFormat, Settings};
use kringle::http::{self, Address};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Rows come and go on different threads and in all sizes; of what a put costs, an eighth was the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    take_memory_by_small_pages();
    let mut words: Vec<OsString> = std::env::args_os().collect();
    match words.get(1).and_then(|word| word.to_str()) {
        Some(demo::WORD) => return demo::run(words.into_iter().skip(2)),
        // A node of a demo: one like any other, but for its end.
        Some(demo::tether::WORD) => {
            if let Err(code) = demo::tether::tie(words.get(2).and_then(|word| word.to_str())) {
                return code;
            }
            words.drain(1..3);
        }
        _ => {}
    }
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    match Settings::load(words, std::env::vars_os(), read) {
        Err(error) => fail(2, &error.to_string()),
        Ok(Load::Say(text)) => say(&text),
        Ok(Load::Health(asked)) => match http::ask_health(asked.url.url(), asked.timeout) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &format!("kringle: {error}")),
        },
        Ok(Load::Run(settings)) => {
            start_log(&settings);
            let announce = |address: &Address| {
                let url = &address.url;
                say(&format!(
                    "kringle listens on {url}\ntry: curl -X PUT {url}/kv/hello -d world && curl {url}/kv/hello"
                ));
                if let Some((host, port)) = &address.resp {
                    say(&format!("redis clients: redis-cli -h {host} -p {port}"));
                }
            };
            match http::run(*settings, announce) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(1, &format!("kringle: {error}")),
            }
        }
    }
}

/// Asks for pages of 4 KiB, whatever the machine's setting for huge ones, which the allocator asks for otherwise. Of 2 MiB
/// each, every thread's first row and every table that grows keeps up to as much again that nothing lies in: 20 MiB of
/// the 78 that a node of 100,000 small keys took. What they had spared: 3 to 6 % of a GET's processor time at 100,000
/// keys; of a PUT's, and of both at a million keys, nothing that could be seen. To be called first: what is in memory
/// already stays as it is. Where it is refused the node is larger, and works.
fn take_memory_by_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn say(text: &str) -> ExitCode {
    // Whoever closed our output does not want to read it.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn fail(code: u8, line: &str) -> ExitCode {
    eprintln!("{line}");
    ExitCode::from(code)
}

fn start_log(settings: &Settings) {
    let mut log = env_logger::Builder::new();
    // What the libraries say about their own insides is no change of this node's state, and whatever is sent to the port
    // that is no HTTP is an error of whoever sent it: `--log info,actix_http=error` shows it.
    for library in ["actix_server", "fjall", "lsm_tree"] {
        log.filter_module(library, log::LevelFilter::Warn);
    }
    log.filter_module("actix_http", log::LevelFilter::Off);
    log.parse_filters(&settings.log);
    if settings.log_format == LogFormat::Json {
        log.format(|out, record| {
            let line = serde_json::json!({
                "at_ms": kringle::node::wall_ms(), "level": record.level().as_str().to_lowercase(),
                "kind": record.target(), "text": record.args().to_string(),
            });
            writeln!(out, "{line}")
        });
    }
    log.init();
}
