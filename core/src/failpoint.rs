//! Named points at which a fault test has a process die.
//!
//! They exist in builds with debug assertions only. `FAIL_POINT=worker:accepted@3` kills the process with
//! SIGKILL when it reaches that point for the third time; a line on standard error tells that it was reached.

/// Dies here when the environment asks for it.
#[inline]
pub fn reach(name: &str) {
    #[cfg(debug_assertions)]
    armed::reach(name);
    let _ = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Armed {
        name: String,
        left: AtomicU32,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    pub(super) fn reach(name: &str) {
        let Some(armed) = ARMED.get_or_init(read).as_ref().filter(|armed| armed.name == name) else {
            return;
        };
        if armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            eprintln!("fail point {name} reached");
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }

    fn read() -> Option<Armed> {
        #[expect(clippy::disallowed_methods, reason = "not a setting: it exists for fault tests only")]
        let text = std::env::var("FAIL_POINT").ok()?;
        let (name, count) = text.split_once('@').unwrap_or((&text, "1"));
        Some(Armed { name: name.to_owned(), left: AtomicU32::new(count.parse().ok()?) })
    }
}
