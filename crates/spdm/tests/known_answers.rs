//! Every value of real sessions' known answers comes out of both providers.

use std::fs;
use std::path::Path;

use bindery_spdm::algorithm::{Aead, Group, Selected, Suite, Version};
use bindery_spdm::crypto::aws_lc::AwsLc;
use bindery_spdm::crypto::rust_crypto::RustCrypto;
use bindery_spdm::crypto::{Crypto, Secret};
use bindery_spdm::key_schedule::{Handshake, Side, TrafficSecret};
use bindery_spdm::secured::{Opener, Sealer, SessionId};
use bindery_spdm::{PeerFault, Purpose, signed_message};
use serde_json::Value;

const PROVIDERS: [&dyn Crypto; 2] = [&AwsLc, &RustCrypto];
const SUITE: Suite = Suite::P384Sha384;

#[test]
fn transcripts_and_signature() {
    for (crypto, answers) in cases() {
        let [chain, request, response] =
            ["cert_chain_hash", "key_exchange", "key_exchange_rsp"].map(|name| answers.bytes(name));
        let (signature, hmac) = (SUITE.signature_bytes(), SUITE.hash_bytes());
        let unsigned = response.len() - signature - hmac;
        let transcript = |response: &[u8]| {
            let mut hasher = crypto.hasher(SUITE);
            for part in [&answers.bytes("vca"), &chain, &request, response] {
                hasher.update(part);
            }
            hasher.digest()
        };
        let before = transcript(&response[..unsigned]);
        assert_eq!(before, answers.bytes("kex_transcript_hash"));
        assert_eq!(transcript(&response[..unsigned + signature]), answers.bytes("th1"));

        let message = signed_message(answers.version(), Purpose::KeyExchange, &before);
        let prefix = answers.bytes("kex_sig_prefix");
        assert_eq!(&message[..prefix.len()], prefix);
        let (point, signature) = (answers.bytes("leaf_pub_sec1"), answers.bytes("kex_signature"));
        let verify = |message: &[u8]| crypto.verify(SUITE, &point[1..], message, &signature);
        assert_eq!(verify(&message), Ok(()));
        assert!(verify(&message[1..]).is_err());
    }
}

#[test]
fn key_schedule() {
    for (crypto, answers) in cases() {
        let handshake = handshake(crypto, &answers);
        for (side, name) in [(Side::Requester, "req_hs"), (Side::Responder, "rsp_hs")] {
            answers.check_traffic(name, handshake.traffic(side));
        }
        let response = answers.bytes("key_exchange_rsp");
        let proof = &response[response.len() - SUITE.hash_bytes()..];
        assert!(handshake.verify_data(Side::Responder, &answers.bytes("th1")).matches(proof));
        assert!(!handshake.verify_data(Side::Requester, &answers.bytes("th1")).matches(proof));
        for (side, name) in [(Side::Requester, "req_finished"), (Side::Responder, "rsp_finished")] {
            let key = answers.bytes(name);
            let proof = crypto.hmac(SUITE, &key, &[&answers.bytes("th2")]);
            let ours = handshake.verify_data(side, &answers.bytes("th2"));
            assert!(ours.matches(proof.expose()), "{name}");
        }

        let application = handshake.application(&answers.bytes("th2"));
        answers.check_traffic("req_app", &application.requester);
        answers.check_traffic("rsp_app", &application.responder);
        let exported = handshake.export_master(&answers.bytes("th2"));
        assert!(exported.matches(&answers.bytes("export_master")));
    }
}

#[test]
fn secrets_between() {
    for (crypto, answers) in cases() {
        let zeros = [0; 48];
        let secret = crypto.hmac(SUITE, &zeros, &[&answers.bytes("dhe")]);
        assert!(secret.matches(&answers.bytes("handshake_secret")));
        let mut label = vec![48, 0];
        label.extend(format!("spdm1.{} derived", answers.version().wire() & 0xf).bytes());
        label.push(1);
        let salt = crypto.hmac(SUITE, secret.expose(), &[&label]);
        let master = crypto.hmac(SUITE, salt.expose(), &[&zeros]);
        assert!(master.matches(&answers.bytes("master_secret")));
    }
}

#[test]
fn records_open() {
    for (crypto, answers) in cases() {
        let id = SessionId { requester: 0xffff, responder: 0xffff };
        let handshake = handshake(crypto, &answers);
        let application = handshake.application(&answers.bytes("th2"));
        let open = |traffic: &TrafficSecret| Opener::new(id, traffic.clone()).unwrap();
        let mut openers = [
            ("handshake REQ", open(handshake.traffic(Side::Requester))),
            ("handshake RSP", open(handshake.traffic(Side::Responder))),
            ("app REQ", open(&application.requester)),
            ("app RSP", open(&application.responder)),
        ];
        let mut sealers = [
            Sealer::new(id, handshake.traffic(Side::Requester).clone()).unwrap(),
            Sealer::new(id, handshake.traffic(Side::Responder).clone()).unwrap(),
            Sealer::new(id, application.requester.clone()).unwrap(),
            Sealer::new(id, application.responder.clone()).unwrap(),
        ];
        let records = answers.values["records"].as_array().unwrap();
        assert_eq!(records.len(), 12);
        for record in records {
            let name = format!("{} {}", text(&record["phase"]), text(&record["dir"]));
            let place = openers.iter().position(|(of, _)| *of == name).unwrap();
            let mut bytes = unhex(text(&record["aad"]));
            bytes.extend(unhex(text(&record["ciphertext_and_tag"])));
            let mut padded = bytes.clone();
            padded.resize(bytes.len().next_multiple_of(4), 0);
            let message = openers[place].1.open(&padded).unwrap();
            assert_eq!(message[0], answers.version().wire());
            assert_eq!(sealers[place].seal(&message).unwrap(), bytes);
        }
    }
}

#[test]
fn an_opener_gives_one_guess() {
    let (crypto, answers) = cases().next().unwrap();
    let id = SessionId { requester: 1, responder: 2 };
    let traffic = handshake(crypto, &answers).traffic(Side::Requester).clone();
    let mut sealer = Sealer::new(id, traffic.clone()).unwrap();
    let (first, second) = (sealer.seal(b"first").unwrap(), sealer.seal(b"second").unwrap());
    let opener = || Opener::new(id, traffic.clone()).unwrap();

    for at in 0..first.len() {
        let mut damaged = first.clone();
        damaged[at] ^= 1;
        let mut opener = opener();
        assert!(opener.open(&damaged).is_err(), "byte {at}");
        assert_eq!(opener.open(&first).unwrap_err(), PeerFault::SpentKeys);
        opener.update().unwrap();
        assert_eq!(opener.open(&first).unwrap_err(), PeerFault::SpentKeys);
    }
    let mut reordered = opener();
    assert_eq!(reordered.open(&second).unwrap_err(), PeerFault::Forged);
    let mut replayed = opener();
    assert_eq!(replayed.open(&first).unwrap().as_slice(), b"first");
    assert_eq!(replayed.open(&first).unwrap_err(), PeerFault::Forged);
}

/// Both providers, with the suites, groups and ciphers that the sessions did not use.
#[test]
fn providers_agree() {
    for suite in Suite::ALL {
        let hashes = PROVIDERS.map(|crypto| {
            let mut hasher = crypto.hasher(suite);
            hasher.update(b"begun ");
            let mut forked = hasher.fork();
            forked.update(b"and forked");
            (hasher.digest(), forked.digest())
        });
        assert_eq!(hashes[0], hashes[1]);
        let macs = PROVIDERS.map(|crypto| crypto.hmac(suite, &[7; 99], &[b"a", b"bc"]));
        assert!(macs[0].matches(macs[1].expose()));
    }
    for group in Group::ALL {
        let share = |at: usize, scalar| {
            PROVIDERS[at].key_share(group, &vec![scalar; group.scalar_bytes()]).unwrap()
        };
        assert_eq!(share(0, 3).public(), share(1, 3).public());
        assert_eq!(share(0, 3).public().len(), group.public_bytes());
        let one = share(0, 3).agree(&share(1, 5).public()).unwrap();
        let other = share(1, 5).agree(&share(0, 3).public()).unwrap();
        assert!(one.matches(other.expose()));
        for (at, crypto) in PROVIDERS.into_iter().enumerate() {
            assert!(share(at, 3).agree(&vec![1; group.public_bytes()]).is_err());
            assert!(crypto.key_share(group, &vec![0; group.scalar_bytes()]).is_err());
            assert!(crypto.key_share(group, &vec![0xff; group.scalar_bytes()]).is_err());
        }
    }
    for aead in Aead::ALL {
        let sealed = PROVIDERS.map(|crypto| {
            let mut text = b"text".to_vec();
            let key = crypto.aead_key(aead, &vec![9; aead.key_bytes()]).unwrap();
            key.seal([4; 12], b"aad", &mut text).unwrap();
            text
        });
        assert_eq!(sealed[0], sealed[1]);
        for crypto in PROVIDERS {
            let mut text = sealed[0].clone();
            let key = crypto.aead_key(aead, &vec![9; aead.key_bytes()]).unwrap();
            key.open([4; 12], b"aad", &mut text).unwrap();
            assert_eq!(text, b"text");
            assert!(crypto.aead_key(aead, &[9; 15]).is_err());
        }
    }
}

struct Answers {
    values: Value,
}

impl Answers {
    fn bytes(&self, name: &str) -> Vec<u8> {
        unhex(text(&self.values[name]))
    }

    fn version(&self) -> Version {
        let digits = text(&self.values["spdm_version"]).trim_start_matches("0x");
        Version::from_wire(u8::from_str_radix(digits, 16).unwrap()).unwrap()
    }

    fn check_traffic(&self, name: &str, traffic: &TrafficSecret) {
        assert!(traffic.secret().matches(&self.bytes(name)), "{name}");
        assert!(traffic.key().matches(&self.bytes(&format!("{name}_key"))), "{name}");
        assert_eq!(traffic.iv().as_slice(), self.bytes(&format!("{name}_iv")), "{name}");
    }
}

fn cases() -> impl Iterator<Item = (&'static dyn Crypto, Answers)> {
    let files = ["spdm-emu.kat.json", "spdm-emu-1.3.kat.json"];
    PROVIDERS.into_iter().flat_map(move |crypto| files.map(|file| (crypto, answers(file))))
}

fn answers(file: &str) -> Answers {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
    Answers { values: serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap() }
}

fn handshake(crypto: &'static dyn Crypto, answers: &Answers) -> Handshake {
    let selected = Selected {
        version: answers.version(),
        suite: SUITE,
        group: Group::Secp384r1,
        aead: Aead::Aes256Gcm,
    };
    Handshake::new(crypto, selected, &Secret::new(answers.bytes("dhe")), &answers.bytes("th1"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn unhex(digits: &str) -> Vec<u8> {
    let digits = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
