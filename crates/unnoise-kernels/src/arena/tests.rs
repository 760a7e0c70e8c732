use super::*;

static ALLOCATOR: ArenaAllocator = ArenaAllocator::new();

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 64).unwrap()
}

#[test]
fn blocks_do_not_overlap_and_what_is_free_is_used_again() {
    let allocator = ArenaAllocator::new();
    // Sizes in and out of what is served, in an order without a pattern; every block carries its number.
    let (mut blocks, mut state): (Vec<(*mut u8, Layout, u8)>, usize) = (Vec::new(), 1);
    for round in 0..2000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if blocks.len() > 20 || (state >> 40).is_multiple_of(3) && !blocks.is_empty() {
            let (block, layout, number) = blocks.swap_remove((state >> 33) % blocks.len());
            // SAFETY: the block is as large as its layout, and is given back once.
            unsafe {
                assert!([0, layout.size() / 2, layout.size() - 1].into_iter().all(|i| *block.add(i) == number), "round {round}");
                allocator.dealloc(block, layout);
            }
        } else {
            let (layout, number) = (layout(1 + (state >> 36) % (3 << 20)), (round % 251) as u8);
            // SAFETY: the layout is not empty, and the block is as large.
            unsafe {
                let zeroed = round % 2 == 0;
                let block = if zeroed { allocator.alloc_zeroed(layout) } else { allocator.alloc(layout) };
                assert!(!block.is_null() && (block as usize).is_multiple_of(64));
                assert!(!zeroed || std::slice::from_raw_parts(block, layout.size()).iter().all(|v| *v == 0), "round {round}");
                block.write_bytes(number, layout.size());
                blocks.push((block, layout, number));
            }
        }
    }
    for (block, layout, _) in blocks {
        // SAFETY: as above.
        unsafe { allocator.dealloc(block, layout) };
    }
    let arena = allocator.0.lock().unwrap();
    assert!(arena.used.iter().all(|word| *word == 0), "everything was given back");
    // 21 blocks of at most 3 MiB, and what lies free between them.
    assert!(arena.touched * UNIT <= 2 * 21 * (3 << 20), "{} units", arena.touched);
}

#[test]
fn a_block_grows_and_shrinks_with_what_it_holds() {
    let sizes = [100, 200 << 10, 256 << 10, 260 << 10, 300 << 10, 5 << 20, 1 << 20, 1000, 3 << 20];
    // SAFETY: every layout is that of the block at its time; the bytes that are read have been written.
    unsafe {
        let (mut block, mut now) = (ALLOCATOR.alloc(layout(50)), 50);
        block.write_bytes(7, now);
        for size in sizes {
            block = ALLOCATOR.realloc(block, layout(now), size);
            assert!(!block.is_null());
            assert!(std::slice::from_raw_parts(block, now.min(size)).iter().all(|v| *v == 7), "{now} to {size}");
            block.write_bytes(7, size);
            now = size;
        }
        ALLOCATOR.dealloc(block, layout(now));
    }
}

#[test]
fn the_first_gap_that_suffices_is_found() {
    let mut arena = Box::new(Arena { reserved: Reserved::NotYet, used: [0; UNITS / WORD], touched: 0 });
    assert_eq!(arena.find(1), Some(0));
    arena.mark(0..130, true);
    arena.mark(60..70, false);
    arena.mark(100..101, false);
    let found = [1, 10, 11, 300].map(|n| arena.find(n));
    assert_eq!(found, [Some(60), Some(60), Some(130), Some(130)]);
    assert_eq!(arena.find(UNITS - 130), Some(130));
    assert_eq!(arena.find(UNITS - 129), None);
}
