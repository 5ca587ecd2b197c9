//! A terminal with a person at it: the command runs on a pty, and what it shows is waited for before something is typed.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::common::{CARDVAULT, PATIENCE};

pub(crate) struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    /// The binary with these arguments, at a terminal of its own.
    pub(crate) fn run(args: &[&str]) -> Self {
        Self::start(Command::new(CARDVAULT), args)
    }

    /// The same in a session of its own, where keys such as Ctrl-C send signals.
    pub(crate) fn run_in_session(args: &[&str]) -> Self {
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", CARDVAULT]);
        Self::start(command, args)
    }

    fn start(mut command: Command, args: &[&str]) -> Self {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&main).unwrap();
        unlockpt(&main).unwrap();
        let name = ptsname(&main, Vec::new()).unwrap().into_string().unwrap();
        let side = || File::options().read(true).write(true).open(&name).unwrap();
        command.args(args).stdin(Stdio::from(side())).stdout(Stdio::from(side())).stderr(Stdio::from(side()));
        let child = command.spawn().unwrap();
        drop(command);
        let keyboard = File::from(main);
        let (mut reading, screen) = (keyboard.try_clone().unwrap(), Arc::new(Mutex::new(String::new())));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The read fails once the command has ended.
            while let Ok(read @ 1..) = reading.read(&mut bytes) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { keyboard, screen, child }
    }

    /// All that was shown.
    pub(crate) fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Waits until this is shown.
    pub(crate) fn expect(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.screen().contains(text) {
            assert!(Instant::now() < end, "{text} is not shown: {}", self.screen());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for the end: exit code and all that was shown.
    pub(crate) fn end(mut self) -> (i32, String) {
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() && Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        // What was written last is read yet.
        std::thread::sleep(std::time::Duration::from_millis(50));
        (status.code().unwrap_or(-1), self.screen())
    }
}
