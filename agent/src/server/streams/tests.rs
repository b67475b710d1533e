//! Frames as clients send them, and as nobody should.

use std::os::unix::net::UnixStream;

use async_io::Async;
use bytes::Bytes;
use futures_lite::future::{block_on, poll_once};
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use super::header_block::{HeaderBlocks, MAX_BLOCK};
use super::link::{halves, Source};
use super::{spdy, websocket};
use std::sync::Arc;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Three blocks of one zlib stream with the dictionary, made by zlib itself: an exec's first two, a port-forward's.
const BLOCKS: [&str; 3] = [
    "78f9e3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff",
    "c22a054ccc29f9a52500000000ffff",
    "02a55548b15d04ce2116061606409ab30812cd99a0e4cf6880a11b54462502000000ffff",
];

fn pairs(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn blocks_of_headers_are_read_as_zlib_compresses_them() {
    let mut blocks = HeaderBlocks::default();
    let mut read = |at: usize| blocks.read(&hex(BLOCKS[at])).unwrap();
    assert_eq!(read(0), pairs(&[("streamtype", "error")]));
    assert_eq!(read(1), pairs(&[("streamtype", "stdout")]));
    assert_eq!(read(2), pairs(&[("port", "8080"), ("requestid", "0"), ("streamtype", "data")]));
}

/// A block that is not compressed, as the first of its stream.
fn stored(block: &[u8]) -> Vec<u8> {
    let mut stored = hex("78bbe3c6a7c2");
    for piece in block.chunks(0xffff) {
        let len = u16::try_from(piece.len()).unwrap();
        stored.push(0);
        stored.extend(len.to_le_bytes());
        stored.extend((!len).to_le_bytes());
        stored.extend(piece);
    }
    stored.extend(hex("000000ffff"));
    stored
}

fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let number = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
    block.extend(number(headers.len()));
    for (name, value) in headers {
        for text in [name, value] {
            block.extend(number(text.len()));
            block.extend(text.as_bytes());
        }
    }
    block
}

#[test]
fn blocks_that_are_none_are_refused() {
    let refused = |compressed: &[u8]| HeaderBlocks::default().read(compressed).unwrap_err().to_string();
    assert_eq!(HeaderBlocks::default().read(&stored(&block(&[("a", "b")]))).unwrap(), pairs(&[("a", "b")]));
    let long = "x".repeat(MAX_BLOCK - 32);
    assert!(HeaderBlocks::default().read(&stored(&block(&[("a", &long)]))).is_ok());
    let too_long = "x".repeat(MAX_BLOCK);
    assert!(refused(&stored(&block(&[("a", &too_long)]))).contains("too long"));
    // Sixteen megabytes in as many thousand bytes.
    let mut bomb = hex("78bbe3c6a7c2");
    bomb.extend(miniz_bomb());
    assert!(refused(&bomb).contains("too long"));
    assert!(refused(b"").contains("head"));
    // Without a dictionary, and with another.
    assert!(refused(&hex("789c000000ffff")).contains("head"));
    assert!(refused(&hex("78bb00000001000000ffff")).contains("head"));
    assert!(refused(&hex("78bbe3c6a7c207ffffffff")).contains("zlib"));
    // A count without what it counts, lengths past the end, more headers than anybody has, no UTF-8.
    for block in [
        &[0, 0, 0, 1][..],
        &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0, 9],
        &[0, 0, 0, 65],
        &[0xff; 8],
        &[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0],
    ] {
        assert!(refused(&stored(block)).contains("too soon"), "{block:?}");
    }
}

/// Fixed-Huffman code for one literal and then its repetition, 258 bytes in 13 bits, for ever.
fn miniz_bomb() -> Vec<u8> {
    // BFINAL 0, BTYPE 01; literal 0x00 (8 bits: 00110000); then length 258 (code 285: 11000101), distance 1 (00000).
    let mut bits = vec![0, 1, 0];
    bits.extend([0, 0, 1, 1, 0, 0, 0, 0]);
    for _ in 0..65_000 {
        bits.extend([1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    }
    bits.chunks(8).map(|byte| byte.iter().enumerate().map(|(at, bit)| bit << at).sum()).collect()
}

/// A connection whose other end has sent this and closed.
fn sent(bytes: &[u8]) -> (super::link::Plain, Arc<super::link::Sink>, Async<UnixStream>) {
    let (near, mut far) = Async::<UnixStream>::pair().unwrap();
    // More than a socket takes at once comes as what was read along with the request.
    let (early, late) = bytes.split_at(bytes.len().saturating_sub(1024));
    block_on(far.write_all(late)).unwrap();
    far.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let (source, sink) = halves(Box::new(near), Bytes::copy_from_slice(early));
    (source, Arc::new(sink), far)
}

/// What the server has answered so far.
async fn answers(far: &mut Async<UnixStream>) -> Vec<u8> {
    let (mut answers, mut piece) = (Vec::new(), [0; 1024]);
    while let Some(Ok(read @ 1..)) = poll_once(far.read(&mut piece)).await {
        answers.extend(&piece[..read]);
    }
    answers
}

fn spdy_frame(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0x80, 3][..], &kind.to_be_bytes(), &[flags], &len[1..], payload].concat()
}

fn spdy_data(id: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&id.to_be_bytes()[..], &[flags], &len[1..], payload].concat()
}

fn syn(id: u32, compressed: &[u8]) -> Vec<u8> {
    spdy_frame(1, 0, &[&id.to_be_bytes()[..], &[0; 6], compressed].concat())
}

/// All that a client has said, until it has closed or makes no sense.
fn spdy_said(bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
    let (source, sink, mut far) = sent(bytes);
    let writer = Arc::new(spdy::Writer::new(sink.clone(), false));
    let mut reader = spdy::Reader::new(Source::Plain(source), writer);
    let mut said = Vec::new();
    let answered = block_on(async {
        loop {
            match reader.next().await {
                Ok(Some(frame)) => said.push(format!("{frame:?}")),
                Ok(None) => break,
                Err(error) => {
                    said.push(error.to_string());
                    break;
                }
            }
        }
        answers(&mut far).await
    });
    (said, answered)
}

#[test]
fn spdy_frames_are_read_in_pieces_and_pings_answered() {
    let big = vec![7; 20_000];
    let client = [
        spdy_frame(4, 0, &[0, 0, 0, 0]),
        syn(1, &hex(BLOCKS[0])),
        spdy_frame(6, 0, &[0, 0, 0, 9]),
        // A ping of ours, answered: nothing.
        spdy_frame(6, 0, &[0, 0, 0, 8]),
        spdy_frame(9, 0, &[0, 0, 0, 1, 0, 0, 1, 0]),
        syn(3, &hex(BLOCKS[1])),
        spdy_data(3, 0, b"hello"),
        spdy_data(3, 1, &big),
        spdy_data(1, 1, b""),
        spdy_frame(3, 0, &[0, 0, 0, 1, 0, 0, 0, 5]),
        spdy_frame(7, 0, &[0; 8]),
    ];
    let (said, answered) = spdy_said(&client.concat());
    assert_eq!(said[0], r#"Open { id: 1, headers: [("streamtype", "error")], fin: false }"#);
    assert_eq!(said[1], r#"Open { id: 3, headers: [("streamtype", "stdout")], fin: false }"#);
    assert_eq!(said[2], "Data { id: 3, bytes: [104, 101, 108, 108, 111], fin: false }");
    let data: Vec<&String> = said.iter().filter(|said| said.contains("id: 3, bytes: [7")).collect();
    let sevens: usize = data.iter().map(|said| said.matches('7').count()).sum();
    assert_eq!(sevens, big.len());
    assert!(data.len() > 2 && data.iter().rev().skip(1).all(|said| said.ends_with("fin: false }")));
    assert!(data[data.len() - 1].ends_with("fin: true }"));
    assert_eq!(said[said.len() - 2..], ["Data { id: 1, bytes: [], fin: true }", "Reset { id: 1 }"]);
    assert_eq!(answered, spdy_frame(6, 0, &[0, 0, 0, 9]));
}

#[test]
fn spdy_frames_that_are_none_end_the_connection() {
    let first = hex(BLOCKS[0]);
    for (bytes, why) in [
        (spdy_frame(1, 0, &[0; 4]), "too short"),
        (spdy_frame(3, 0, &[0; 2]), "too short"),
        (spdy_frame(5, 0, &[]), "unknown kind"),
        (spdy_frame(10, 0, &[]), "unknown kind"),
        (spdy_frame(6, 0, &vec![0; MAX_BLOCK + 1]), "too long"),
        (syn(2, &first), "not a client's next"),
        ([syn(3, &first), syn(3, &hex(BLOCKS[1]))].concat(), "not a client's next"),
        (hex("80020001000000"), "end"),
        (hex("8002000100000000"), "another version"),
        (spdy_data(1, 0, b"cut off")[..12].to_vec(), "end"),
    ] {
        let (said, _) = spdy_said(&bytes);
        assert!(said.last().unwrap().contains(why), "{bytes:?}: {said:?}");
    }
}

fn socket_frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let masked = payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let len = match payload.len() {
        short @ 0..=125 => vec![0x80 | u8::try_from(short).unwrap()],
        medium @ 126..=0xffff => [&[0x80 | 126][..], &u16::try_from(medium).unwrap().to_be_bytes()].concat(),
        long => [&[0x80 | 127][..], &u64::try_from(long).unwrap().to_be_bytes()].concat(),
    };
    [&[head][..], &len, &mask, &masked.collect::<Vec<u8>>()].concat()
}

/// Messages and their channels.
type Messages = Vec<(Option<u8>, Vec<u8>)>;

/// Messages, what ended them, and the answers.
fn socket_said(bytes: &[u8]) -> (Messages, String, Vec<u8>) {
    let (source, sink, mut far) = sent(bytes);
    let mut reader = websocket::Reader::new(source, sink.clone());
    let mut said = Messages::new();
    block_on(async {
        let end = loop {
            match reader.on_channel().await {
                Ok(Some((channel, bytes))) => match said.last_mut() {
                    Some((last, all)) if *last == channel => all.extend(bytes),
                    _ => said.push((channel, bytes.to_vec())),
                },
                Ok(None) => break "closed".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        (said, end, answers(&mut far).await)
    })
}

#[test]
fn websocket_messages_are_read_in_pieces_whatever_frames_they_come_in() {
    let big: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    let client = [
        socket_frame(0x82, b"\x00hello"),
        socket_frame(0x89, b"ping"),
        // A message in three frames, with a ping between them, and one of text.
        socket_frame(0x02, b"\x01a"),
        socket_frame(0x89, b""),
        socket_frame(0x00, b"bc"),
        socket_frame(0x80, b"d"),
        socket_frame(0x82, b""),
        socket_frame(0x81, b"\x02text"),
        socket_frame(0x82, &[&[3][..], &big].concat()),
        socket_frame(0x88, &1000_u16.to_be_bytes()),
    ];
    let (said, end, answered) = socket_said(&client.concat());
    assert_eq!(said[0], (Some(0), b"hello".to_vec()));
    assert_eq!(said[1], (Some(1), b"abcd".to_vec()));
    assert_eq!(said[2], (None, vec![]));
    assert_eq!(said[3], (Some(2), b"text".to_vec()));
    assert!(said[4] == (Some(3), big) && said.len() == 5);
    assert_eq!(end, "closed");
    assert_eq!(answered, b"\x8a\x04ping\x8a\x00\x88\x02\x03\xe8");
}

#[test]
fn websocket_frames_that_are_none_end_the_connection() {
    let mut unmasked = socket_frame(0x82, b"x");
    unmasked[1] &= 0x7f;
    let mut endless = socket_frame(0x82, &[0; 70_000]);
    endless[2] = 0xff;
    for (bytes, why) in [
        (unmasked, "without a mask"),
        (socket_frame(0xc2, b"x"), "reserved bits"),
        (socket_frame(0x83, b"x"), "unknown kind"),
        (socket_frame(0x80, b"x"), "out of its order"),
        ([socket_frame(0x02, b"x"), socket_frame(0x82, b"y")].concat(), "out of its order"),
        (socket_frame(0x89, &[0; 126]), "too long"),
        (socket_frame(0x09, b"x"), "in parts"),
        (endless, "longer than there are bytes"),
    ] {
        let (_, end, answered) = socket_said(&bytes);
        assert!(end.contains(why), "{end}, not {why}");
        assert_eq!(answered, b"\x88\x02\x03\xea", "{why}");
    }
    assert!(socket_said(&socket_frame(0x82, b"cut off")[..8]).1.contains("end"));
}

/// What clients send, changed at random: it ends, by an error or not, and nothing is held of what it says.
#[test]
fn hostile_frames_end_as_errors() {
    let random = fastrand::Rng::with_seed(0x5bd1);
    let spdy = [
        syn(1, &hex(BLOCKS[0])),
        syn(3, &hex(BLOCKS[1])),
        syn(5, &hex(BLOCKS[2])),
        spdy_frame(6, 0, &[0, 0, 0, 9]),
        spdy_data(3, 0, &[9; 300]),
        spdy_data(5, 1, b""),
        spdy_frame(8, 0, &[0; 12]),
    ];
    let socket = [
        socket_frame(0x82, b"\x00hello"),
        socket_frame(0x02, b"\x04{\"Width\":80}"),
        socket_frame(0x80, b"tail"),
        socket_frame(0x89, b"ping"),
        socket_frame(0x82, &[5; 300]),
        socket_frame(0x88, b""),
    ];
    let mut random = random;
    for _ in 0..4_000 {
        for (frames, is_spdy) in [(&spdy[..], true), (&socket[..], false)] {
            let mut bytes: Vec<u8> = Vec::new();
            for _ in 0..random.usize(1..8) {
                bytes.extend(&frames[random.usize(..frames.len())]);
            }
            for _ in 0..random.usize(..6) {
                let at = random.usize(..bytes.len());
                match random.u8(..4) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes[at] ^= 1 << random.u8(..8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, random.u8(..)),
                }
            }
            let said = if is_spdy { spdy_said(&bytes).0.concat().len() } else { socket_said(&bytes).0.len() };
            // A byte of data is printed as five letters at most; a block of headers can be inflated.
            assert!(said <= 64 * 1024 * 8, "{} bytes became {said}", bytes.len());
        }
    }
}

#[test]
fn the_handshakes_answer_is_that_of_the_rfc() {
    assert_eq!(websocket::accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn a_tunnel_is_one_stream_of_bytes() {
    let client = [
        socket_frame(0x82, &syn(1, &hex(BLOCKS[0]))[..9]),
        socket_frame(0x82, &syn(1, &hex(BLOCKS[0]))[9..]),
        socket_frame(0x82, &[spdy_data(1, 0, b"one"), spdy_data(1, 1, b"two")].concat()),
        socket_frame(0x88, b""),
    ];
    let (source, sink, mut far) = sent(&client.concat());
    let messages = websocket::Reader::new(source, sink.clone());
    let writer = Arc::new(spdy::Writer::new(sink, true));
    let mut reader = spdy::Reader::new(Source::Tunnel(Box::new(messages)), writer.clone());
    block_on(async {
        let mut said = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            said.push(format!("{frame:?}"));
        }
        assert_eq!(
            said,
            [
                r#"Open { id: 1, headers: [("streamtype", "error")], fin: false }"#,
                "Data { id: 1, bytes: [111, 110, 101], fin: false }",
                "Data { id: 1, bytes: [116, 119, 111], fin: true }",
            ]
        );
        writer.reply(1).await.unwrap();
        let mut answered = [0; 64];
        let read = poll_once(far.read(&mut answered)).await.unwrap().unwrap();
        // The close, answered; then a message, and in it a SYN_REPLY of an empty block of headers.
        assert_eq!(
            answered[..read],
            hex("8800822080030002000000180000000178f9e3c6a7c2000400fbff000000000000 00ffff"
                .replace(' ', "")
                .as_str())
        );
    });
}
