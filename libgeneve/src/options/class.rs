//! The class option: the QoS class of a packet.

/// The class option: 4 bytes of data.
///
/// Class ID (8 bits), drop precedence (8 bits), 16 reserved bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClassOption {
    /// ID of the class.
    pub class: u8,
    /// Drop precedence within the class: packets with a higher one are dropped earlier.
    pub drop_precedence: u8,
}

impl ClassOption {
    /// Bytes of data.
    pub const LEN: usize = 4;

    /// Parses the option's data; `None` unless it has 4 bytes. Reserved bits are ignored.
    #[must_use]
    pub fn from_wire(data: &[u8]) -> Option<ClassOption> {
        let &[class, drop_precedence, _, _] = data else {
            return None;
        };
        Some(ClassOption {
            class,
            drop_precedence,
        })
    }

    /// Returns the option's data; reserved bits are zero.
    #[must_use]
    pub fn to_wire(self) -> [u8; Self::LEN] {
        [self.class, self.drop_precedence, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_bits_are_zero_when_written_and_ignored_when_read() {
        let option = ClassOption {
            class: 7,
            drop_precedence: 2,
        };
        assert_eq!(option.to_wire(), [7, 2, 0, 0]);
        assert_eq!(ClassOption::from_wire(&[7, 2, 0xff, 0xff]), Some(option));
        assert_eq!(ClassOption::from_wire(&[7, 2]), None);
        assert_eq!(ClassOption::from_wire(&[7, 2, 0, 0, 0, 0, 0, 0]), None);
    }
}
