//! The bytes of each message, kept for every released version.
//!
//! `wire/<version>/<Message>.hex` holds one message with every field set, as that version wrote it.
//! These files never change, so that what an older Tidings stored on the bus stays readable. A
//! version that adds fields gets a module, a folder and a line in [`VERSIONS`];
//! `UPDATE_WIRE=1 cargo test -p tidings-proto` writes its missing files.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "wire/v0_1_0.rs"]
mod v0_1_0;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::Path;

use tidings_proto::Message;

/// A version, and the samples of its messages.
type Version = (&'static str, fn() -> Vec<Sample>);
/// Asserts what bytes decode to.
type Check = Box<dyn Fn(&[u8])>;

/// Every version whose messages may be on a bus.
const VERSIONS: &[Version] = &[("v0_1_0", v0_1_0::samples)];

/// A message with known values.
struct Sample {
    name: &'static str,
    bytes: Vec<u8>,
    /// Asserts that bytes decode to the values.
    assert_decodes: Check,
}

impl Sample {
    fn new<M: Message + Default + PartialEq + Debug + 'static>(
        name: &'static str,
        value: M,
    ) -> Self {
        Self {
            name,
            bytes: value.encode_to_vec(),
            assert_decodes: Box::new(move |bytes| {
                assert_eq!(M::decode(bytes).unwrap(), value, "{name}");
            }),
        }
    }
}

#[test]
fn messages_of_every_version_decode_to_their_values_and_encode_to_their_bytes() {
    for (version, samples) in VERSIONS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/wire")
            .join(version);
        let mut files = BTreeSet::new();
        for sample in samples() {
            let path = folder.join(format!("{}.hex", sample.name));
            if std::env::var_os("UPDATE_WIRE").is_some() && !path.exists() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, hex(&sample.bytes)).unwrap();
            }
            let kept = unhex(&fs::read_to_string(&path).unwrap());
            (sample.assert_decodes)(&kept);
            (sample.assert_decodes)(&sample.bytes);
            assert_eq!(
                sample.bytes, kept,
                "{version} {}: the encoding changed",
                sample.name
            );
            files.insert(path);
        }
        let kept = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        assert_eq!(files, kept.collect(), "{version}: every file has a sample");
    }
}

/// Bytes as lines of 32, for review.
fn hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| -> String {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .chain(["\n".to_owned()])
            .collect()
    };
    bytes.chunks(32).map(line).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex digits")
    };
    digits.chunks(2).map(byte).collect()
}
