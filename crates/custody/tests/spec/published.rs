//! Known answers: the primitives as published, through the crate where its interface reaches them, and else through the
//! second implementation in `support`, against which the other tests hold the crate.

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use custody::descriptor::verify_p256;
use custody::p256::Point;
use custody::session::WrappingKey;
use custody::{FileSealer, Kdf, Sealer, SealerKey, sha256};
use secret::Secret;

use crate::support::{
    self, CounterRng, FAKE_KEY, World, aes_kw_unwrap, aes_kw_wrap, cbc_encrypt, hkdf_sha256,
    key_pair, record, x963_sha256,
};

fn bytes(digits: &str) -> Vec<u8> {
    hex::decode(digits.replace(' ', "")).unwrap()
}

fn array<const N: usize>(digits: &str) -> [u8; N] {
    bytes(digits).try_into().unwrap()
}

#[test]
fn aes_key_wrap_as_in_rfc_3394_section_4_6() {
    let key = array("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F");
    let plain = bytes("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F");
    let wrapped = bytes(
        "28C9F404C4B810F4 CBCCB35CFB87F826 3F5786E2D80ED326 CBC7F0E71A99F43B FB988B9B7A02DD21",
    );
    assert_eq!(aes_kw_wrap(&key, &plain), wrapped);
    assert_eq!(aes_kw_unwrap(&key, &wrapped), Some(plain));
}

/// SP 800-38A, F.2.5.
const CBC_KEY: &str = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
const CBC_IV: &str = "000102030405060708090a0b0c0d0e0f";
const CBC_PLAIN: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51";
const CBC_CIPHER: &str = "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d";

#[test]
fn the_null_cbc_derivation_is_aes_cbc_as_in_sp_800_38a() {
    let (key, iv) = (array(CBC_KEY), array(CBC_IV));
    let (plain, cipher) = (bytes(CBC_PLAIN), array::<32>(CBC_CIPHER));
    assert_eq!(cbc_encrypt(&key, &iv, &plain), cipher);
    // With a zero IV the same two blocks come out when the first input block carries the IV.
    let mut context: [u8; 32] = plain.try_into().unwrap();
    for (byte, iv) in context.iter_mut().zip(iv) {
        *byte ^= iv;
    }
    let derived = WrappingKey::from_shared(&Secret::new(Box::new(key)), Kdf::NullCbc, &context);
    let wrapped = derived.wrap(record([5; 64]).as_secret());
    assert_eq!(wrapped[..], aes_kw_wrap(&cipher, &[5; 64])[..]);
}

#[test]
fn the_x963_derivation_is_that_of_the_standard() {
    // NIST CAVS 12.0, ANSI X9.63 KDF, SHA-256, first case: 192 bits of Z, no shared information, 128 bits of key.
    let z = bytes("96c05619d56c328ab95fe84b18264b08725b85e33fd34f08");
    assert_eq!(
        x963_sha256(&z, &[])[..16],
        bytes("443024c3dae66b95e6f5670601558f71")
    );
    let (z, context) = ([1; 32], [2; 32]);
    let derived = WrappingKey::from_shared(&Secret::new(Box::new(z)), Kdf::X963Sha256, &context);
    let wrapped = derived.wrap(record([5; 64]).as_secret());
    let expected = aes_kw_wrap(&x963_sha256(&z, &context), &[5; 64]);
    assert_eq!(wrapped[..], expected[..]);
}

#[test]
fn ecdh_p256_as_in_nist_cavp() {
    // KAS_ECC_CDH_PrimitiveTest, P-256, COUNT = 0.
    let peer = [
        "04",
        "700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287",
        "db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac",
    ];
    let own = key_pair(&array(
        "7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534",
    ));
    let shared = own.agree(&Point::parse(&bytes(&peer.concat())).unwrap());
    let z = array("46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b");
    assert!(shared == Secret::new(Box::new(z)));
}

#[test]
fn hmac_under_a_record_as_in_rfc_4231() {
    // Case 1 has a key of 20 bytes; HMAC pads it with zeros to a block of 64, which is what a record is.
    let mut key = [0; 64];
    key[..20].fill(0x0b);
    assert_eq!(
        record(key).hmac(b"Hi There"),
        array("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")
    );
}

#[test]
fn hkdf_as_in_rfc_5869_and_the_commitment_and_envelope_under_it() {
    // Case 3: no salt, no info; the first block of its 42 bytes.
    assert_eq!(
        hkdf_sha256(&[], &[0x0b; 22], &[]),
        array("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d")
    );
    // Case 1: with both.
    assert_eq!(
        hkdf_sha256(
            &bytes("000102030405060708090a0b0c"),
            &[0x0b; 22],
            &bytes("f0f1f2f3f4f5f6f7f8f9")
        ),
        array("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf")
    );

    let mut rng = CounterRng::new("hkdf");
    let world = World::ecdh(2, 2, Kdf::NullCbc, &mut rng);
    let (key, _) = world.seal(&mut rng);
    let shares: Vec<_> = (1..)
        .zip(world.records(&key))
        .map(|(x, record)| (x, record[4..36].try_into().unwrap()))
        .collect();
    let dek = support::interpolate(&shares);
    let commitment = hkdf_sha256(&[], &dek, b"tacit/commit/v1");
    assert_eq!(support::header(&key).commitment, commitment);
    // magic ‖ format ‖ nonce[12] ‖ tag[16] ‖ length ‖ ciphertext
    let envelope = &key.envelope;
    assert_eq!(envelope[..5], *b"TCEV\x01");
    let nonce: [u8; 12] = envelope[5..17].try_into().unwrap();
    let cipher = Aes256GcmSiv::new((&hkdf_sha256(&[], &dek, b"tacit/enc/v1")).into());
    let mut buffer = FAKE_KEY.to_vec();
    let tag = cipher
        .encrypt_inout_detached(
            &Nonce::from(nonce),
            &key.header,
            buffer.as_mut_slice().into(),
        )
        .unwrap();
    assert_eq!(envelope[17..33], tag[..]);
    assert_eq!(envelope[33..37], (FAKE_KEY.len() as u32).to_be_bytes());
    assert_eq!(envelope[37..], buffer);
}

#[test]
fn aes_256_gcm_siv_as_in_rfc_8452_appendix_c_2() {
    let key = array::<32>("0100000000000000000000000000000000000000000000000000000000000000");
    let nonce = Nonce::from(array::<12>("030000000000000000000000"));
    for (plain, aad, result) in [
        ("", "", "07f5f4169bbf55a8400cd47ea6fd400f"),
        (
            "0100000000000000",
            "",
            "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28",
        ),
        (
            "010000000000000000000000",
            "",
            "9aab2aeb3faa0a34aea8e2b18ca50da9ae6559e48fd10f6e5c9ca17e",
        ),
        (
            "0200000000000000",
            "01",
            "1de22967237a813291213f267e3b452f02d01ae33e4ec854",
        ),
    ] {
        let cipher = Aes256GcmSiv::new((&key).into());
        let mut buffer = bytes(plain);
        let tag = cipher
            .encrypt_inout_detached(&nonce, &bytes(aad), buffer.as_mut_slice().into())
            .unwrap();
        assert_eq!([&buffer[..], &tag].concat(), bytes(result));
    }
}

#[test]
fn ed25519_as_in_rfc_8032_and_strictly() {
    let seed = array("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let sealer = FileSealer::from_seed(&Secret::new(Box::new(seed))).unwrap();
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(sealer.public().to_string(), public);
    let signature = array(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    );
    assert_eq!(sealer.sign(b"").unwrap(), signature);
    let key = SealerKey::from_hex(public).unwrap();
    assert!(key.verify(b"", &signature));
    assert!(!key.verify(b"x", &signature));
    // s + L verifies under lax implementations: one signature would have two encodings.
    let order: [u8; 32] = array("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut lax = signature;
    let mut carry = 0u16;
    for (byte, add) in lax[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    assert!(!key.verify(b"", &lax));
}

#[test]
fn ecdsa_p256_as_in_rfc_6979() {
    let point = [
        "04",
        "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6",
        "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
    ];
    let key = Point::parse(&bytes(&point.concat())).unwrap();
    let signature = bytes(
        "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
    );
    assert!(verify_p256(&key, b"sample", &signature));
    assert!(!verify_p256(&key, b"sampl", &signature));
    assert!(!verify_p256(&key, b"sample", &signature[..63]));
    assert!(!verify_p256(&key, b"sample", &[0; 64]));
    assert_eq!(
        sha256(b"abc"),
        array("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    );
}
