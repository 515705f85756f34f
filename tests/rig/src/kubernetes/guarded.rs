//! Servers that end with the test process, even when it is killed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Starts the server in its arguments and prints its process id. Kills the server when standard
/// input is closed: when the test drops the guard, or ends in any way.
const GUARD: &str = r#"
trap '' HUP INT QUIT TERM
"$@" </dev/null >&2 &
echo $!
exec >&-
read -r _
kill -9 $!
wait
"#;

/// Removes the folder in its argument when standard input is closed.
const CLEANER: &str = r#"trap '' HUP INT QUIT TERM; read -r _; sleep 1; rm -rf "$1""#;

/// A server that is killed when this is dropped, and when this process ends.
pub struct Guarded {
    guard: Child,
    server: Pid,
}

impl Guarded {
    /// Starts a server; its output is appended to a file.
    pub fn start(executable: &Path, arguments: &[String], log: &Path) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("the rig's folder is writable");
        let mut command = Command::new("sh");
        command
            .args(["-c", GUARD, "sh"])
            .arg(executable)
            .args(arguments);
        let mut guard = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a shell can be started");
        let mut id = String::new();
        BufReader::new(guard.stdout.take().expect("standard output is piped"))
            .read_line(&mut id)
            .expect("the guard prints the id");
        let server = id
            .trim()
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .expect("the guard prints the id");
        Self { guard, server }
    }

    /// Stops the server like a machine that hangs.
    pub fn freeze(&self) {
        kill_process(self.server, Signal::STOP).expect("the server runs");
    }

    /// Resumes the server after [`Guarded::freeze`].
    pub fn thaw(&self) {
        kill_process(self.server, Signal::CONT).expect("the server runs");
    }
}

/// Kills the server, as `kill -9` does, and waits until it has ended.
impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Removes a folder when this process ends. A static value needs it, because it is never dropped.
pub struct Cleaner {
    _shell: Child,
}

impl Cleaner {
    /// Starts the cleaner of a folder.
    pub fn start(folder: &Path) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", CLEANER, "sh"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            _shell: command.spawn().expect("a shell can be started"),
        }
    }
}
