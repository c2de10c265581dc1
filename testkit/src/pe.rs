//! PE images, to the byte.

/// A PE32+ image with these sections (name, content, size in memory), and certificates at its end.
pub fn image(sections: &[(&str, &[u8], usize)], certificates: &[u8]) -> Vec<u8> {
    let headers = (0x40 + 24 + 112 + 16 * 8 + 40 * sections.len()).next_multiple_of(0x200);
    let mut file = vec![0; headers];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x46, &(sections.len() as u16).to_le_bytes());
    put(0x54, &(112u16 + 16 * 8).to_le_bytes());
    let optional = 0x58;
    put(optional, &0x20bu16.to_le_bytes());
    put(optional + 60, &(headers as u32).to_le_bytes());
    put(optional + 64, b"\xde\xad\xbe\xef"); // checksum
    put(optional + 108, &16u32.to_le_bytes());
    let (mut raw, mut address) = (headers, 0x1000);
    for (i, (name, content, memory)) in sections.iter().enumerate() {
        let at = optional + 112 + 16 * 8 + 40 * i;
        put(at, name.as_bytes());
        let size = content.len().next_multiple_of(0x200);
        for (i, field) in [*memory, address, size, raw].into_iter().enumerate() {
            put(at + 8 + 4 * i, &(field as u32).to_le_bytes());
        }
        raw += size;
        address += memory.next_multiple_of(0x1000);
    }
    if !certificates.is_empty() {
        put(optional + 112 + 32, &(raw as u32).to_le_bytes());
        put(optional + 112 + 36, &(certificates.len() as u32).to_le_bytes());
    }
    for (_, content, _) in sections {
        file.extend(*content);
        file.resize(file.len().next_multiple_of(0x200), 0);
    }
    file.extend(certificates);
    file
}
