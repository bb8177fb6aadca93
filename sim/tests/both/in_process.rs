//! In one process.

use std::future::ready;
use std::io;
use std::thread;

use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;
use hyper::Request;
use sim::{Sim, World};

use crate::Received;

#[path = "ebs.rs"]
mod ebs;
#[path = "http.rs"]
mod http;

fn open(world: World) -> impl Future<Output = io::Result<Sim>> {
    ready(Ok(Sim::in_process(world)))
}

/// Sends a request that is as on the wire.
fn exchange(sim: &Sim, request: &[u8]) -> io::Result<Received> {
    // The tests call as from outside, on threads of a runtime.
    thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(answer(sim, request))
        });
        answer.join().unwrap()
    })
}

async fn answer(sim: &Sim, request: &[u8]) -> io::Result<Received> {
    let answer = sim.answer(parsed(request).try_into().unwrap()).await;
    let answer = answer.map_err(|error| io::Error::new(io::ErrorKind::UnexpectedEof, error))?;
    let status = answer.status().as_u16();
    let headers = answer.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let headers = headers.collect();
    let (mut rest, mut body) = (answer.into_body(), Vec::new());
    while let Some(Ok(frame)) = rest.frame().await {
        body.extend(frame.into_data().unwrap());
    }
    Ok(Received {
        status,
        headers,
        body,
    })
}

fn parsed(request: &[u8]) -> Request<SdkBody> {
    let end = request.windows(4).position(|end| end == b"\r\n\r\n");
    let (head, body) = request.split_at(end.unwrap() + 4);
    let mut lines = std::str::from_utf8(head).unwrap().lines();
    let mut words = lines.next().unwrap().split(' ');
    let mut parsed = Request::builder()
        .method(words.next().unwrap())
        .uri(format!("http://sim{}", words.next().unwrap()));
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        parsed = parsed.header(name, value);
    }
    parsed.body(SdkBody::from(body)).unwrap()
}
