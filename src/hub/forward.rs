//! A request for an `http` address by way of a proxy.
//!
//! The proxy is given the whole address (RFC 9112, section 3.2.2), as Python does it. ureq asks
//! every proxy for a tunnel (`CONNECT`), and many proxies open one to port 443 alone.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use ureq::Body;
use ureq::http::{Response, response::Builder};

use super::address::Address;

/// The most bytes of an answer's status and headers.
const MAX_HEAD: u64 = 64 << 10;

/// Sends a request without a body. It is of HTTP/1.0, so that what comes back is not in chunks.
pub(super) fn send(
    proxy: &ureq::Proxy,
    method: &str,
    address: &Address,
    headers: &[(&str, String)],
    timeouts: (Duration, Duration),
) -> io::Result<Response<Body>> {
    let mut stream = connect(proxy, timeouts.0)?;
    stream.set_read_timeout(Some(timeouts.1))?;
    stream.set_write_timeout(Some(timeouts.1))?;
    let mut head = format!("{method} {} HTTP/1.0\r\n", address.absolute());
    head += &format!("Host: {}\r\nConnection: close\r\n", address.host_and_port());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if proxy.username().is_some() || proxy.password().is_some() {
        let (user, password) = (proxy.username(), proxy.password());
        let both = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
        head += &format!("Proxy-Authorization: Basic {}\r\n", base64(both.as_bytes()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    receive(BufReader::new(stream), method)
}

fn connect(proxy: &ureq::Proxy, timeout: Duration) -> io::Result<TcpStream> {
    let host = proxy.host().trim_matches(['[', ']']);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in (host, proxy.port()).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn receive(
    mut stream: impl BufRead + Send + Sync + 'static,
    method: &str,
) -> io::Result<Response<Body>> {
    let mut lines = (&mut stream).take(MAX_HEAD).lines();
    let mut line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    let first = line()?;
    let status =
        first.strip_prefix("HTTP/1.").and_then(|it| it.split(' ').nth(1)).unwrap_or_default();
    let mut response: Builder = Response::builder().status(status);
    let mut length = None;
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else {
            if line.is_empty() {
                break;
            }
            return Err(wrong("its answer is not of HTTP"));
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("Content-Length") {
            length =
                Some(value.parse().map_err(|_| wrong("the length that it says is no number"))?);
        }
        if name.eq_ignore_ascii_case("Transfer-Encoding") {
            return Err(wrong("it answers HTTP/1.0 in chunks"));
        }
        response = response.header(name, value);
    }
    let length = if method == "HEAD" { 0 } else { length.unwrap_or(u64::MAX) };
    let body = Body::builder().reader(stream.take(length));
    response.body(body).map_err(|_| wrong("its answer is not of HTTP"))
}

fn wrong(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Source: RFC 4648, section 4.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 4648, section 10.
    #[test]
    fn base64_of_the_standard() {
        for (bytes, want) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), want);
        }
        assert_eq!(base64(b"\xfb\xff\xbf"), "+/+/");
    }

    #[test]
    fn answers_that_are_none() {
        let receive = |text: &'static str| {
            receive(text.as_bytes(), "GET").map(|mut response| {
                (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
            })
        };
        assert_eq!(
            receive("HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody").unwrap(),
            (200, "body".to_owned())
        );
        assert_eq!(receive("HTTP/1.0 200\r\nContent-Length: 2\r\n\r\nbody").unwrap().1, "bo");
        for wrong in [
            "",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nno header\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert!(receive(wrong).is_err(), "{wrong}");
        }
    }
}
