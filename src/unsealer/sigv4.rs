//! AWS Signature Version 4 (AWS General Reference, "Signing AWS API requests"): for a request without a query, at one place.

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use ring::hmac;
use zeroize::Zeroizing;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Whose request it is.
pub struct Credentials {
    /// `AKIA…` or `ASIA…`.
    pub access_key: String,
    /// Its secret.
    pub secret: Zeroizing<String>,
    /// The session's token, of credentials that are lent.
    pub session: Option<Zeroizing<String>>,
}

/// What is signed.
pub struct Signing<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// The path, as it is sent.
    pub path: &'a str,
    /// All headers that are signed: lower-case names, no blanks around values.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
    /// `YYYYMMDDTHHMMSSZ`, as in the `x-amz-date` header.
    pub at: &'a str,
    /// The region.
    pub region: &'a str,
    /// The service.
    pub service: &'a str,
}

/// The value of the `authorization` header.
pub fn authorization(credentials: &Credentials, signing: &Signing<'_>) -> String {
    let mut headers = signing.headers.to_vec();
    headers.sort_unstable();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical =
        format!("{}\n{}\n\n{lines}\n{names}\n{}", signing.method, signing.path, sha256(signing.body));
    let day = signing.at.split('T').next().unwrap_or_default();
    let scope = format!("{day}/{}/{}/aws4_request", signing.region, signing.service);
    let text = format!("{ALGORITHM}\n{}\n{scope}\n{}", signing.at, sha256(canonical.as_bytes()));
    let first = Zeroizing::new(format!("AWS4{}", credentials.secret.as_str()));
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, first.as_bytes());
    for part in [day, signing.region, signing.service, "aws4_request"] {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
    }
    let signature = HEXLOWER.encode(hmac::sign(&key, text.as_bytes()).as_ref());
    format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
        credentials.access_key
    )
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "20150830T123600Z";
    const HOST: (&str, &str) = ("host", "example.amazonaws.com");
    const DATE: (&str, &str) = ("x-amz-date", AT);

    /// Name, method, headers, body, signature.
    type Vector<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);

    /// The published test suite of the signature (aws-sig-v4-test-suite).
    #[test]
    fn the_published_vectors_agree() {
        let credentials = Credentials {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret: Zeroizing::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            session: None,
        };
        let form = ("content-type", "application/x-www-form-urlencoded");
        let own = ("my-header1", "value1");
        let vectors: [Vector<'_>; 4] = [
            (
                "get-vanilla",
                "GET",
                &[HOST, DATE],
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "post-vanilla",
                "POST",
                &[HOST, DATE],
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-header-key-sort",
                "POST",
                &[own, HOST, DATE],
                "",
                "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
            ),
            (
                "post-x-www-form-urlencoded",
                "POST",
                &[form, HOST, DATE],
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ];
        for (name, method, headers, body, signature) in vectors {
            let signing = Signing {
                method,
                path: "/",
                headers,
                body: body.as_bytes(),
                at: AT,
                region: "us-east-1",
                service: "service",
            };
            let made = authorization(&credentials, &signing);
            assert!(made.ends_with(&format!(", Signature={signature}")), "{name}: {made}");
            assert!(made.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="));
        }
    }
}
