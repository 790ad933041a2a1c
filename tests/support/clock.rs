//! A wall clock for a node that the test sets, by a shim between the node and the C library.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A wall clock for one process that the test sets: a file with `+ms`, `-ms` or `=ms`.
#[derive(Debug)]
pub struct FalseClock {
    home: tempfile::TempDir,
}

impl FalseClock {
    pub fn new(says: &str) -> FalseClock {
        let clock = FalseClock { home: tempfile::tempdir().expect("a folder for the clock") };
        std::fs::write(clock.home.path().join("clock.c"), SHIM).expect("the shim's source");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"])
            .current_dir(clock.home.path())
            .status()
            .expect("cc, which rustc links with");
        assert!(compiled.success(), "the shim does not compile");
        clock.set(says);
        clock
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("says")
    }

    pub fn set(&self, says: &str) {
        let new = self.home.path().join("says.new");
        std::fs::write(&new, says).expect("the clock's file");
        std::fs::rename(new, self.file()).expect("the clock's file");
    }

    /// What to start the node under.
    pub fn under(&self) -> Vec<OsString> {
        let variable = |name: &str, path: &Path| {
            let mut word = OsString::from(format!("{name}="));
            word.push(path);
            word
        };
        let shim = self.home.path().join("clock.so");
        vec!["env".into(), variable("FALSE_CLOCK", &self.file()), variable("LD_PRELOAD", &shim)]
    }
}

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, t);
    const char *path = getenv("FALSE_CLOCK");
    if (id != CLOCK_REALTIME || !path) return result;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return result;
    char says[32] = {0};
    ssize_t length = read(file, says, sizeof says - 1);
    close(file);
    if (length < 2) return result;
    long long ms = says[0] == '=' ? atoll(says + 1) : t->tv_sec * 1000LL + t->tv_nsec / 1000000 + atoll(says);
    t->tv_sec = ms / 1000;
    t->tv_nsec = ms % 1000 * 1000000;
    return result;
}
"#;
