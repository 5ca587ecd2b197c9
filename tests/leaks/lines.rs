//! Requests that are none: bytes that are no TLS, bodies that end in the middle or never come, heads that do not end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::common::Vault;
use crate::{Answers, Canaries, body};

/// Longer than the vault waits for a body in this test.
const ANSWER_MAX: Duration = Duration::from_secs(20);

fn connect(vault: &Vault) -> TcpStream {
    let stream = TcpStream::connect(vault.api().trim_start_matches("https://")).unwrap();
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    stream
}

fn connect_tls(vault: &Vault) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(vault.path("tls/ca.pem")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let host = ServerName::try_from("127.0.0.1").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), host).unwrap(), connect(vault))
}

/// Whoever is cut off, how much of the request he sent, and whether he goes or waits for an answer.
enum Cut {
    /// In the middle of the number.
    Number,
    /// Behind the number, before the body's end.
    Body,
    /// In a header's value.
    Head,
}

pub(crate) fn drive_lines(vault: &Vault, credential: &str, canaries: &mut Canaries, answers: &mut Answers) {
    let number = canaries.make("plain HTTP to TLS", 0);
    let mut stream = connect(vault);
    let _ = write!(stream, "POST /v1/tokens HTTP/1.1\r\nhost: x\r\n\r\n{}", body(&number));
    let _ = stream.read_to_end(&mut answers.0);
    for (case, cut, goes) in [
        ("gone within the number", Cut::Number, true),
        ("gone within the body", Cut::Body, true),
        ("gone within the head", Cut::Head, true),
        ("silent within the number", Cut::Number, false),
        ("silent within the body", Cut::Body, false),
        ("silent within the head", Cut::Head, false),
    ] {
        let number = canaries.make(case, 0);
        // The first twelve digits are no other case's; what a search for whole numbers would miss.
        canaries.halves.push(number[..12].to_owned());
        let sent = request(&number, credential, &cut);
        let mut stream = connect_tls(vault);
        stream.write_all(sent.as_bytes()).unwrap();
        stream.flush().unwrap();
        if goes {
            // It was read before the line ended.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        match cut {
            Cut::Head => assert!(answer.is_empty() || text.starts_with("HTTP/1.1 408"), "{case}: {text}"),
            Cut::Number | Cut::Body => {
                assert!(text.starts_with("HTTP/1.1 408") && text.contains("\"code\":"), "{case}: {text}");
            }
        }
        answers.0.extend_from_slice(&answer);
    }
}

fn request(number: &str, credential: &str, cut: &Cut) -> String {
    let body = body(number);
    let head = format!(
        "POST /v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {credential}\r\nidempotency-key: cut\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    let end = |of: &str| body.find(of).unwrap();
    match cut {
        Cut::Number => format!("{head}\r\n{}", &body[..end(number) + 12]),
        Cut::Body => format!("{head}\r\n{}", &body[..end("exp_month")]),
        Cut::Head => format!("{head}x-card: {number}"),
    }
}
