use proptest::prelude::*;

use super::*;
use crate::schema::StructType;

fn data_type(text: &str) -> DataType {
    StructType::from_text(&format!("a {text}")).unwrap().fields[0].data_type.clone()
}

#[allow(clippy::option_option, reason = "no value, and null")]
fn canonical(ty: &str, text: &str) -> Option<Option<String>> {
    PartitionValue::parse(&data_type(ty), text).map(|value| value.to_text())
}

/// What is found in logs and folders, and what it stands for. `None`: for nothing that can be taken.
const TEXTS: &[(&str, &str, Option<&str>)] = &[
    ("byte", "127", Some("127")),
    ("byte", "128", None),
    ("byte", "-128", Some("-128")),
    ("short", "-32769", None),
    ("int", "007", Some("7")),
    ("int", "+1", Some("1")),
    ("int", " 1", Some("1")),
    ("int", "-0", Some("0")),
    ("int", "1.0", Some("1")),
    ("int", "1.5", None),
    ("int", "1e3", None),
    ("int", "2147483648", None),
    ("int", "x", None),
    ("long", "-9223372036854775808", Some("-9223372036854775808")),
    ("long", "9223372036854775808", None),
    ("decimal(10,2)", "1.5", Some("1.50")),
    ("decimal(10,2)", "1.50", Some("1.50")),
    ("decimal(10,2)", "2", Some("2.00")),
    ("decimal(10,2)", "+1.5", Some("1.50")),
    ("decimal(10,2)", ".5", Some("0.50")),
    ("decimal(10,2)", "-1.05", Some("-1.05")),
    ("decimal(10,2)", "-0.00", Some("0.00")),
    ("decimal(10,2)", "1e3", Some("1000.00")),
    ("decimal(10,2)", "150e-2", Some("1.50")),
    ("decimal(10,2)", "1.500", Some("1.50")),
    ("decimal(10,2)", "1.555", None),
    ("decimal(4,2)", "123.4", None),
    ("decimal(3,0)", "100e-2", Some("1")),
    (
        "decimal(38,0)",
        "99999999999999999999999999999999999999",
        Some("99999999999999999999999999999999999999"),
    ),
    ("decimal(38,0)", "100000000000000000000000000000000000000", None),
    ("double", "1", Some("1.0")),
    ("double", "1e3", Some("1000.0")),
    ("double", "1E10", Some("1.0E10")),
    ("double", "12345678.5", Some("1.23456785E7")),
    ("double", "0.0001", Some("1.0E-4")),
    ("double", "-0.0", Some("0.0")),
    ("double", "-0", Some("0.0")),
    ("double", "NaN", Some("NaN")),
    ("double", "-nan", Some("NaN")),
    ("double", "inf", Some("Infinity")),
    ("double", "-Infinity", Some("-Infinity")),
    ("double", "x", None),
    ("float", "0.1", Some("0.1")),
    ("float", "3.4028235E38", Some("3.4028235E38")),
    ("boolean", "TRUE", Some("true")),
    ("boolean", "f", Some("false")),
    ("boolean", "2", None),
    ("date", "2024-02-29", Some("2024-02-29")),
    ("date", "2020-1-1", Some("2020-01-01")),
    ("date", "2020-01-01 00:00:00", Some("2020-01-01")),
    ("date", "2020-01-01T01:00:00", None),
    ("date", "2023-02-29", None),
    ("date", "10000-01-01", Some("+10000-01-01")),
    ("date", "+10000-01-01", Some("+10000-01-01")),
    ("date", "0001-01-01", Some("0001-01-01")),
    ("date", "0000-12-31", Some("0000-12-31")),
    ("date", "-0001-01-01", Some("-0001-01-01")),
    ("date", "9999999-01-01", None),
    ("date", "20200101", None),
    ("timestamp", "2020-01-01 12:00:00", Some("2020-01-01T12:00:00.000000Z")),
    ("timestamp", "2020-01-01", Some("2020-01-01T00:00:00.000000Z")),
    ("timestamp", "2020-1-1 2:3:4", Some("2020-01-01T02:03:04.000000Z")),
    ("timestamp", "2020-01-01T12:00:00.5", Some("2020-01-01T12:00:00.500000Z")),
    ("timestamp", "2020-01-01T12:00:00+02:00", Some("2020-01-01T10:00:00.000000Z")),
    ("timestamp", "2020-01-01T00:30:00.123456789Z", Some("2020-01-01T00:30:00.123456Z")),
    ("timestamp", "1969-12-31 23:59:59.999999", Some("1969-12-31T23:59:59.999999Z")),
    ("timestamp", "9999-12-31T23:59:59.999999Z", Some("9999-12-31T23:59:59.999999Z")),
    ("timestamp", "2020-01-01 25:00:00", None),
    ("timestamp", "2020-01-01 12:00:00 Europe/Berlin", None),
    ("timestamp_ntz", "2020-01-01T12:00:00", Some("2020-01-01 12:00:00.000000")),
    ("timestamp_ntz", "2020-01-01T12:00:00Z", None),
    ("string", " a%3Ab:c ", Some(" a%3Ab:c ")),
    ("string", "__HIVE_DEFAULT_PARTITION__", Some("__HIVE_DEFAULT_PARTITION__")),
    ("binary", "\u{1}é", Some("\u{1}é")),
];

#[test]
fn texts_stand_for_one_value_or_for_none() {
    for (ty, text, want) in TEXTS {
        assert_eq!(canonical(ty, text).flatten().as_deref(), *want, "{ty} '{text}'");
        assert_eq!(canonical(ty, text).is_some(), want.is_some(), "{ty} '{text}'");
        // What is written is read as the same value.
        if let Some(want) = want {
            assert_eq!(canonical(ty, want), Some(Some((*want).to_owned())), "{ty} '{want}'");
        }
    }
    for ty in ["int", "double", "decimal(3,1)", "boolean", "date", "timestamp", "timestamp_ntz"] {
        assert_eq!(canonical(ty, ""), Some(None), "{ty}");
        assert_eq!(canonical(ty, HIVE_NULL), Some(None), "{ty}");
    }
    for ty in ["string", "binary"] {
        assert_eq!(canonical(ty, ""), Some(None), "{ty}");
    }
    assert_eq!(canonical("array<int>", "x"), None);
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(
        day in -80_000_000_i32..80_000_000,
        micros in -8_000_000_000_000_000_000_i64..8_000_000_000_000_000_000,
        bits: u64,
        digits in -99_999_999_999_999_999_999_i128..99_999_999_999_999_999_999,
    ) {
        let double = f64::from_bits(bits);
        let single = f32::from_bits(u32::try_from(bits >> 32).unwrap());
        for (ty, value) in [
            (PartitionType::Date, PartitionValue::Date(day)),
            (PartitionType::Timestamp, PartitionValue::Timestamp(micros)),
            (PartitionType::TimestampNtz, PartitionValue::TimestampNtz(micros)),
            (PartitionType::Double, PartitionValue::Double(double)),
            (PartitionType::Float, PartitionValue::Float(single)),
            (
                PartitionType::Decimal { precision: 25, scale: 5 },
                PartitionValue::Decimal { digits, scale: 5 },
            ),
        ] {
            let text = value.to_text().unwrap();
            let back = PartitionValue::of(ty, &text);
            let again = back.as_ref().and_then(PartitionValue::to_text);
            prop_assert_eq!(again.as_deref(), Some(text.as_str()));
            if !double.is_nan() && !single.is_nan() {
                prop_assert_eq!(back, Some(value), "{}", text);
            }
        }
    }

    /// Nothing that can stand in a log makes it panic.
    #[test]
    fn any_text_is_a_value_or_not(text: String, number in "[-+]?[0-9]{0,45}(\\.[0-9]{0,45})?([eE][-+]?[0-9]{1,9})?") {
        for (ty, ..) in TEXTS {
            let ty = data_type(ty);
            for text in [&text, &number] {
                if let Some(canonical) = PartitionValue::parse(&ty, text).and_then(|v| v.to_text()) {
                    let again = PartitionValue::parse(&ty, &canonical).and_then(|v| v.to_text());
                    prop_assert_eq!(again, Some(canonical));
                }
            }
        }
    }
}
