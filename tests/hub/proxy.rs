//! A proxy on loopback: it hands on what it is asked for, and opens tunnels.

#![allow(unreachable_pub, reason = "a module of a test, public in none")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Ends with the process.
pub struct Proxy {
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn new() -> Self {
        Self::with_status(200)
    }

    /// Answers all requests with `status`, unless that is 200.
    pub fn with_status(status: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let this = Self { address: listener.local_addr().unwrap(), log: Arc::default() };
        let log = Arc::clone(&this.log);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                thread::spawn(move || serve(stream, status, &log));
            }
        });
        this
    }

    /// `127.0.0.1:port`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The heads of all requests since the last time.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, status: u16, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {}
    log.lock().unwrap().push(head.clone());
    if status != 200 {
        return write!(
            stream,
            "HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let (first, headers) = head.split_once("\r\n").unwrap();
    let words: Vec<&str> = first.split(' ').collect();
    if words[0] == "CONNECT" {
        let target = TcpStream::connect(words[1])?;
        write!(stream, "HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (from, to) = (target.try_clone()?, stream.try_clone()?);
        let back = thread::spawn(move || pass(from, to));
        pass(reader, target)?;
        return back.join().unwrap();
    }
    let rest = words[1].strip_prefix("http://").expect("the whole address");
    let (host, path) = rest.split_once('/').unwrap();
    let mut target = TcpStream::connect(host)?;
    write!(target, "{} /{path} HTTP/1.1\r\n{headers}", words[0])?;
    pass(target, stream)
}

fn pass(mut from: impl Read, mut to: TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.shutdown(Shutdown::Write)
}
