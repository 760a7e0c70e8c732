use super::*;
use crate::check::normal;

/// In tests new arrays start as NaN: what a kernel leaves unwritten or reads too early differs from what it writes over zeros.
#[test]
fn new_arrays_hold_what_the_kernels_write() {
    let sizes = [(3, 5, 9, 7), (5, 6, 4, 4), (1, 8, 33, 12), (20, 1, 8, 8), (96, 32, 16, 16)];
    for &(c_in, c_out, h, w) in &sizes[..if cfg!(miri) { 2 } else { 5 }] {
        for (kernel, stride, pad) in [(3, 1, 1), (3, 2, 1), (1, 1, 0), (3, 1, 0)] {
            let conv = Conv2d { n: 2, c_in, c_out, h, w, kernel, stride, padding: [(pad, pad); 2], exact: false };
            let [rows, columns] = conv.output_sides().unwrap();
            let x = normal(2 * c_in * h * w, 1, 1.0);
            let weight = normal(c_out * c_in * kernel * kernel, 2, 1.0);
            let dy = normal(2 * c_out * rows * columns, 3, 1.0);
            let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            conv.forward(&x, &weight, None, &mut y).unwrap();
            conv.backward_input(&weight, &dy, &mut dx).unwrap();
            assert_eq!(conv.output(&x, &weight, None).unwrap(), y, "{conv:?}");
            assert_eq!(conv.input_gradient(&weight, &dy).unwrap(), dx, "{conv:?}");
            let mut dw = vec![0.0; weight.len()];
            conv.backward_weight(&x, &dy, &mut dw).unwrap();
            assert_eq!(conv.weight_gradient(&x, &dy).unwrap(), dw, "{conv:?}");
        }
    }
    let sizes = [(12, 35, true), (8, 1, false), (32, 1024, true)];
    for &(channels, pixels, silu) in &sizes[..if cfg!(miri) { 2 } else { 3 }] {
        let norm = GroupNorm { n: 3, channels, pixels, groups: 4, eps: 1e-5, silu };
        let [x, dy] = [4, 5].map(|seed| normal(3 * channels * pixels, seed, 1.0));
        let [gamma, beta] = [6, 7].map(|seed| normal(channels, seed, 1.0));
        let (mut y, mut dx, mut dgamma, mut dbeta) = (dy.clone(), dy.clone(), gamma.clone(), beta.clone());
        norm.forward(&x, &gamma, &beta, &mut y).unwrap();
        norm.backward(&x, &gamma, &beta, &dy, &mut dx, &mut dgamma, &mut dbeta).unwrap();
        assert_eq!(norm.output(&x, &gamma, &beta).unwrap(), y);
        assert_eq!(norm.gradients(&x, &gamma, &beta, &dy).unwrap(), (dx, dgamma, dbeta));
    }
    for &pixels in &[1, 17, 100][..if cfg!(miri) { 2 } else { 3 }] {
        let attention = Attention { n: 2, heads: 2, width: 5, pixels, scale: 0.4 };
        let [q, k, v] = [8, 9, 10].map(|seed| normal(20 * pixels, seed, 1.0));
        let mut out = vec![0.0; q.len()];
        attention.forward(&q, &k, &v, &mut out, None).unwrap();
        assert_eq!(attention.output(&q, &k, &v, None).unwrap(), out);
        let mut stats = vec![0.0; 4 * pixels];
        attention.forward(&q, &k, &v, &mut out, Some(&mut stats)).unwrap();
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0; q.len()]);
        attention.backward(&q, &k, &v, &out, &stats, &k, &mut dq, &mut dk, &mut dv).unwrap();
        assert_eq!(attention.gradients([&q, &k, &v], &out, &stats, &k).unwrap(), [dq, dk, dv]);
    }
}

#[test]
fn channels_are_joined_and_parted() {
    let [a, b] = [(1, 3 * 2 * 5), (2, 3 * 4 * 5)].map(|(seed, n)| normal(n, seed, 1.0));
    let y = concat_channels(&a, &b, 3).unwrap();
    assert_eq!((&y[..10], &y[10..30], &y[30..40]), (&a[..10], &b[..20], &a[10..20]));
    assert_eq!(split_channels(&y, 3, 6, 2).unwrap(), (a.clone(), b));
    assert_eq!(concat_channels(&[], &[], 0).unwrap(), []);
    assert!(concat_channels(&a, &y, 7).is_err());
    assert!(split_channels(&y, 3, 6, 7).is_err() && split_channels(&y, 3, 7, 2).is_err() && split_channels(&y, 4, 6, 2).is_err());
    let absurd = Conv2d { n: usize::MAX, c_in: 1, c_out: 1, h: 9, w: 9, kernel: 1, stride: 1, padding: [(0, 0); 2], exact: false };
    assert!(absurd.output(&[], &[0.0; 1][..], None).is_err());
}
