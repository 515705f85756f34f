//! The terminal of `tidings top`: its own screen, without echo, restored at the end.

use std::io::{self, Read, Write};

use rustix::termios::{
    LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};
use tidings_core::model::text::visible;
use tokio::sync::mpsc;

/// Switches to the second screen of the terminal and hides the cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Shows the cursor and switches back.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// The columns and rows of a terminal whose size is not known.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// A terminal that shows screens. Dropping it restores what was there.
pub struct Terminal {
    /// The modes of standard input, if it is a terminal too.
    saved: Option<Termios>,
}

/// The keyboard of a terminal, or none.
pub struct Keys {
    quit: mpsc::Receiver<()>,
}

impl Keys {
    /// Returns when q is pressed; never without a keyboard.
    pub async fn quit(&mut self) {
        if self.quit.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

impl Terminal {
    /// Takes over the terminal. `None` if standard output is none.
    ///
    /// # Errors
    /// The terminal refuses.
    pub fn open() -> anyhow::Result<(Option<Self>, Keys)> {
        let (pressed, quit) = mpsc::channel(1);
        let keys = Keys { quit };
        if !isatty(io::stdout()) {
            return Ok((None, keys));
        }
        let mut saved = None;
        if isatty(io::stdin()) {
            let modes = tcgetattr(io::stdin())?;
            let mut quiet = modes.clone();
            // Ctrl-C stays a signal.
            quiet.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            tcsetattr(io::stdin(), OptionalActions::Now, &quiet)?;
            saved = Some(modes);
            // A thread of its own, because the end of the process must not wait for a key.
            std::thread::spawn(move || {
                for key in io::stdin().lock().bytes().map_while(Result::ok) {
                    if matches!(key, b'q' | b'Q') {
                        let _ = pressed.blocking_send(());
                    }
                }
            });
        }
        let terminal = Self { saved };
        write!(io::stdout(), "{ENTER}")?;
        Ok((Some(terminal), keys))
    }

    /// Draws lines over the last screen. What does not fit is cut off.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&self, lines: &[String]) -> anyhow::Result<()> {
        let size = tcgetwinsize(io::stdout()).ok();
        let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        let size = size.filter(|(columns, rows)| *columns > 0 && *rows > 0);
        let screen = screen(lines, size.unwrap_or(USUAL_SIZE));
        let mut stdout = io::stdout().lock();
        stdout.write_all(screen.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = write!(io::stdout(), "{LEAVE}");
        let _ = io::stdout().flush();
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, saved);
        }
    }
}

/// The text that draws lines from the top left corner and erases what was there before.
fn screen(lines: &[String], (columns, rows): (usize, usize)) -> String {
    let mut screen = "\x1b[H".to_owned();
    for (number, line) in lines.iter().take(rows).enumerate() {
        if number > 0 {
            screen.push_str("\r\n");
        }
        screen.extend(visible(line).chars().take(columns));
        screen.push_str("\x1b[K");
    }
    screen.push_str("\x1b[J");
    screen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_fits_and_shows_no_control_characters_of_others() {
        let lines = ["first line", "a\x1b[2Jb", "third"].map(str::to_owned);
        let drawn = screen(&lines, (10, 2));
        assert_eq!(drawn, "\x1b[Hfirst line\x1b[K\r\na\\u001b[2J\x1b[K\x1b[J");
    }
}
