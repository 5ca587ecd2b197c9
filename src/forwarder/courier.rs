//! The courier: a second forwarder without cards. It is a process of its own, has no pair to the keeper and no destination; it posts what
//! the edge hands it to the hosts of the operator's list, and says with which status that was answered.
//!
//! Dialing, TLS, the refusal of private addresses, limits and the rule that no redirect is followed are the forwarder's.
//! Invariant: it dials a host of its list and nothing else (`a_host_that_is_not_on_the_list_is_not_dialed`).

use std::collections::{BTreeSet, HashMap};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use super::exchange::{Ended, build, send};
use super::fault::Fault;
use super::retry_after;
use super::routes::{Limits, Target};
use crate::wire::control::{CourierSettings, FromCourierControl, ToCourierControl};
use crate::wire::courier::{Post, Posted, RETRY_AFTER_SECONDS_MAX};
use crate::wire::frame::{self, FrameReader};
use crate::wire::pair;

/// Exchanges under way at once.
const EXCHANGES_MAX: usize = 1024;
/// Nothing of an answer's body is looked at.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How often connections that waited too long are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

type Hosts = HashMap<(String, u16), Arc<Target>>;

struct Courier {
    reach: Mutex<Arc<Reach>>,
    /// The ports that this process was allowed at its start, by the kernel for good.
    ports: BTreeSet<u16>,
    places: Arc<Semaphore>,
}

/// Where it may post, and how long that may take.
struct Reach {
    hosts: Hosts,
    within: Duration,
}

/// Runs the courier until the supervisor's line ends; the process is confined already.
pub fn run(control: UnixStream) -> Result<(), String> {
    let settings = match pair::receive(&control) {
        Ok((ToCourierControl::Start(settings), _)) => settings,
        Ok(_) | Err(_) => return Err("the supervisor did not say how to start".to_owned()),
    };
    let courier = Courier::new(settings).inspect_err(|sentence| {
        let _ = pair::send(&control, &FromCourierControl::Failed(sentence.clone()), &[]);
    })?;
    super::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot be started: {}", error.kind()))?;
    let courier = Arc::new(courier);
    pair::send(&control, &FromCourierControl::Ready, &[])
        .map_err(|_| "the supervisor's line is broken".to_owned())?;
    let (listening, on, over) = (Arc::clone(&courier), runtime.handle().clone(), Arc::new(Notify::new()));
    let ended = Arc::clone(&over);
    std::thread::spawn(move || {
        listening.listen(&control, &on);
        ended.notify_one();
    });
    runtime.block_on(async {
        tokio::select! {
            () = courier.sweep() => {}
            () = over.notified() => {}
        }
    });
    // A resolver that hangs must not keep the process.
    runtime.shutdown_background();
    Ok(())
}

impl Courier {
    fn new(settings: CourierSettings) -> Result<Self, String> {
        let reach = Reach::compile(settings, &Hosts::new())?;
        Ok(Self {
            ports: reach.hosts.keys().map(|(_, port)| *port).collect(),
            reach: Mutex::new(Arc::new(reach)),
            places: Arc::new(Semaphore::new(EXCHANGES_MAX)),
        })
    }

    /// Reads the supervisor's line until it ends.
    fn listen(self: &Arc<Self>, control: &UnixStream, on: &Handle) {
        while let Ok((message, fds)) = pair::receive::<ToCourierControl>(control) {
            match message {
                ToCourierControl::Start(_) => {}
                ToCourierControl::EdgePair => {
                    fds.into_iter().next().into_iter().for_each(|fd| self.serve(UnixStream::from(fd), on));
                }
                ToCourierControl::Reload(settings) => {
                    if let Err(sentence) = self.reload(settings) {
                        let _ = pair::send(control, &FromCourierControl::Failed(sentence), &[]);
                    }
                }
            }
        }
    }

    fn reload(&self, settings: CourierSettings) -> Result<(), String> {
        let reach = Reach::compile(settings, &self.reach().hosts)?;
        if reach.hosts.keys().any(|(_, port)| !self.ports.contains(port)) {
            return Err("a host is on a port that the courier was not started with; restart it".to_owned());
        }
        *self.lock() = Arc::new(reach);
        Ok(())
    }

    /// Serves one edge until its line ends: a thread reads, another writes, the exchanges are tasks between them.
    fn serve(self: &Arc<Self>, stream: UnixStream, on: &Handle) {
        let Ok(writing) = stream.try_clone() else { return };
        let (tell, told) = mpsc::channel();
        let (courier, on) = (Arc::clone(self), on.clone());
        std::thread::spawn(move || write(writing, &told));
        std::thread::spawn(move || {
            let mut reader = FrameReader::new(stream);
            while let Ok((id, post)) = reader.read::<Post>() {
                let (courier, tell) = (Arc::clone(&courier), tell.clone());
                on.spawn(courier.answer(id, post, tell));
            }
        });
    }

    /// A panic drops the answer; the edge's own limit of time ends its waiting then.
    async fn answer(self: Arc<Self>, id: u64, post: Post, tell: Sender<(u64, Posted)>) {
        let posted = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(_place) => self.post(post).await,
            Err(_) => failed(Fault::Busy),
        };
        // If the line is gone, so is the edge that asked.
        let _ = tell.send((id, posted));
    }

    async fn post(&self, post: Post) -> Posted {
        let reach = self.reach();
        let Some(target) = reach.hosts.get(&(post.host, post.port)) else {
            return failed(Fault::Destination);
        };
        let parts = ("POST", post.path.as_str(), post.headers.as_slice());
        let Some(request) = build(target, parts, Bytes::from(post.body)) else {
            return failed(Fault::Request);
        };
        let limits = Limits { within: reach.within, body_bytes_max: ANSWER_BYTES_MAX };
        let Ended { got, first_write } = send(target, limits, request, true).await;
        let micros = first_write.map_or(0, |at| u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
        match got {
            Ok(got) if (300..400).contains(&got.status) => {
                Posted { status: Some(got.status), micros, ..failed(Fault::Redirect) }
            }
            Ok(got) => {
                let asked = retry_after::seconds(got.status, &got.headers, RETRY_AFTER_SECONDS_MAX);
                Posted { status: Some(got.status), error: None, micros, retry_after_seconds: asked }
            }
            Err(fault) => Posted { micros, ..failed(fault) },
        }
    }

    async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.reach().hosts.values().for_each(|target| target.pool.sweep());
        }
    }

    fn reach(&self) -> Arc<Reach> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Reach>> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reach {
    fn compile(settings: CourierSettings, before: &Hosts) -> Result<Self, String> {
        let trust = settings.trust_pem;
        let mut hosts = Hosts::with_capacity(settings.hosts.len());
        for host in settings.hosts {
            let name = if host.name.contains(':') { format!("[{}]", host.name) } else { host.name.clone() };
            let endpoint = format!("https://{name}:{}", host.port);
            let key = (host.name, host.port);
            let same = before.get(&key).filter(|target| target.is(&endpoint, &trust, host.public_only));
            let target = match same {
                Some(target) => Arc::clone(target),
                None => {
                    let target = Target::new(endpoint, trust.clone(), host.public_only);
                    Arc::new(target.map_err(|what| format!("webhooks: {what}"))?)
                }
            };
            hosts.insert(key, target);
        }
        Ok(Self { hosts, within: Duration::from_secs(settings.timeout_seconds.max(1)) })
    }
}

fn failed(fault: Fault) -> Posted {
    Posted::failed(fault.word())
}

fn write(mut stream: UnixStream, told: &Receiver<(u64, Posted)>) {
    while let Ok((id, posted)) = told.recv() {
        if frame::write(&mut stream, id, &posted).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::CourierHost;

    fn host(name: &str, port: u16, public_only: bool) -> CourierHost {
        CourierHost { name: name.to_owned(), port, public_only }
    }

    fn settings(hosts: Vec<CourierHost>) -> CourierSettings {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        CourierSettings { hosts, trust_pem: issued.cert.pem(), timeout_seconds: 5 }
    }

    fn post(host: &str, port: u16) -> Post {
        Post { host: host.to_owned(), port, path: "/".to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    #[tokio::test]
    async fn a_host_that_is_not_on_the_list_is_not_dialed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let courier = Courier::new(settings(vec![host("localhost", port, true)])).unwrap();
        let word = |posted: Posted| posted.error.unwrap();
        assert_eq!(word(courier.post(post("127.0.0.1", port)).await), "destination");
        assert_eq!(word(courier.post(post("localhost", port ^ 1)).await), "destination");
        // On the list, and where only public addresses may be dialed.
        assert_eq!(word(courier.post(post("localhost", port)).await), "private_address");
        assert!(listener.accept().is_err(), "somebody dialed");
        courier.reload(settings(vec![host("localhost", port, false)])).unwrap();
        let (posted, dialed) = tokio::join!(courier.post(post("localhost", port)), async {
            for _ in 0..100 {
                if listener.accept().is_ok() {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            false
        });
        assert!(dialed && posted.status.is_none());
        assert!(courier.reload(settings(vec![host("localhost", port ^ 1, false)])).is_err());
    }
}
