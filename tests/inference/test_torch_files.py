"""PyTorch's files without PyTorch: both forms in, one out, and nothing in them is executed."""

import base64
import contextlib
import io
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest

from atvg_jax.errors import InputError
from atvg_jax.inference import torch_files
from atvg_jax.inference.torch_programs import program_of

# What torch.save of PyTorch 2.13 wrote of these three tensors, in its two forms; zlib, base 85.
WRITTEN = {
    "archive": (
        "c-o~@yKmD#7(d&2x;z>PG=&NnQwdz>)wn}xv5+NXBtj5U)WvcfH@51;J^RuMrb?)lU;-v4)QKH2FtW2TP!=W_Dkc"
        "X00q*QPY&T6sIpyNW{(g`6`+irGnHT`66gaY2kOS)rEfuNU=7uGSS+F){?a-QLTb8aN)9$+L1E-}sdh4#KAr^x9I"
        ";8TAX-w9!TRltX)-`ThH`@k+w1#X)GdQJ(Ov_~zM{o8_tEC{l>)MX8Rb(NP&o`17>*7kat;3iPVI|8}(IfvR3*!w"
        "6*YGgWVDMGj?7^g*Krr=C1~M%(doV3CGPMWU=LYdJh2WVwJli-IGSxIy7oIb)q7gHE#sWNVBxM@GX^&|aW@Ks?Uh"
        "r8iBABhiOO5Lzmagq|xNfhbG*zS-x~m{Z)i(4NyzJBV&EL1X?V<M>PpJrVScyV#7Awuq`wCYOyjq8IJ+3AvQ(J$S"
        "uPQDjyLN2DGT;Vo7`Kj%s7Tq;9T&Gm66ePDZLkW2|KsoP&xjMUkLS;VWy0TYhoV|$yW7#bND`MON=#gfWny4u8~&"
        "oP1U=Ef6o_L3%_m5=$(TtZ1=cJRAxkG5yURak6Syidks}3S{i$ByC2??fX9a();t$?Cc<-+g#+jFguX6Z7?gYl-f"
        "UzKn+&{hwOn|lbKM}ppKVE!Dd5n|w#DQK>5^taW)q5-1XC?ZZ2Z#2_`e|?n>kr3k`Tq=*Sfc#pZTs=b{m%h`450V"
        "dUEMM91U^;CxucjZNi3hr2rrbE%7P%2t4oU&zARKr6`n5@DwQ%{;;W@Xp^ASBizVWcd)NGy$3F6&ON#co(f1jQD0"
        "{^D=p2pWg3-%_Fz+dFG|o|YFgV%pX+VRqX^k=jV>1<Ec<nI^;}!)5(-Cgg0S$&3i=u)v9!BMvA*v8X1t&9%dNV>5"
        "qp09irNfgH1EU#^!h&tih2Mw=8$W<GIgz;8ue-+F3dALR&Cvc;h!297@G^L>pG5x*jwgIf+N<|#{{qn`k4F"
    ),
    "stream": (
        "c-n1|&2G~`5XaXaNvNTvK=~*j!7;g5sa3n}i5^fd%V)Uwf-Gmf#0!o$vmO^wsZuVjfM?*)BX7a;@CZm87{^sxq>O"
        "fL?d<IT_n+Ol{oO16{y6ya^yAMroBrH>`P-rIF|dBT&KR2+jauj;Ih3YSx&(^~;#Jxy6k;J0S!OCN!TuV1l*BJHn"
        "N;dXR^S|i+mAbxta5D-I^2#OTB#DD%iY**G;}$E9(U`Sn1V2c6iAfHdu=jlWcFMM^neXUV6}dxI;#ume-Qp>sU|s"
        "sEl?Yg`$>(esJz6;ajl9hL0MMXB!__qPQM@b8Xr`dP9(VP5$~YTDZXoy9(3Y0s@dBPhg;Eh5JXY97eIGmS<Gs3*?"
        "om@?JZ~A=FTasaEDu`;C;&*ch?baj9_&kacOa^(hAmc;^%IDML!I~ovkPu?!wKy$8FMGU+A8|EpDB_?N;*+!o~>h"
        "#!oIaOKqlpSx=L3iXxX)f+iK8WCr(I$a!Ng=vpuOy8j=Sz{8yY9uU_e?j~^ugO>LY;n4^lH&5}tdHyBGtYtme%P!"
        "85zQx+;o&Rli5ziPq`_*MvV@^4?PlM*1=Gp!~+BU02"
    ),
}
TENSORS = {
    "module.fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "module.fc.bias": np.array([0.5, -1.25], np.float32),
    "module.norm.num_batches_tracked": np.array(7),
}


def written(form):
    return zlib.decompress(base64.b85decode(WRITTEN[form]))


def archive_of(program, storages=(), pack=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", pack) as archive:
        archive.writestr("net/data.pkl", program)
        for key, content in enumerate(storages):
            archive.writestr(f"net/data/{key}", content)
    return buffer.getvalue()


def stream_of(program, storages=()):
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    content = b"".join(pickle.dumps(part, protocol=2) for part in head) + program
    content += pickle.dumps([str(key) for key in range(len(storages))], protocol=2)
    return content + b"".join(storages)


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("form", WRITTEN)
def test_what_pytorch_wrote_is_read(tmp_path, form):
    (tmp_path / "net.pth").write_bytes(written(form))
    assert_same(torch_files.read(tmp_path / "net.pth"), TENSORS)


def test_there_and_back(tmp_path):
    arrays = TENSORS | {
        "half": np.array([[1.5]], np.float16),
        "none": np.zeros((0, 3), np.float32),
        "double": np.linspace(0, 1, 5),
    }
    torch_files.write(tmp_path / "net.pth", arrays)
    assert_same(torch_files.read(tmp_path / "net.pth"), arrays)
    assert [file.name for file in tmp_path.iterdir()] == ["net.pth"]
    with pytest.raises(ValueError, match=r"complex64.*fc"):
        torch_files.write(tmp_path / "other.pth", {"fc": np.zeros(2, np.complex64)})


def test_pytorch_reads_what_is_written_and_is_read_in_all_its_forms(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch_files.write(tmp_path / "ours.pth", TENSORS)
    loaded = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert_same({name: tensor.numpy() for name, tensor in loaded.items()}, TENSORS)
    whole = torch.arange(24.0).reshape(4, 6)
    # Views of one storage, a parameter, types that NumPy has and one that it has not.
    tensors = {
        "view": whole.T[1:4, ::2],
        "rest": whole[2:],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "half": torch.ones(3).half(),
        "brain": torch.tensor([1.0, -2.5]).bfloat16(),
    }
    wanted = {
        name: (t.float() if name == "brain" else t).detach().numpy() for name, t in tensors.items()
    }
    for archive in (True, False):
        for protocol in (2, 4):
            torch.save(
                {"epoch": 3, "state_dict": tensors},
                tmp_path / "theirs.pth",
                pickle_protocol=protocol,
                _use_new_zipfile_serialization=archive,
            )
            assert_same(torch_files.read(tmp_path / "theirs.pth"), wanted)


class Malice:
    """Unpickled, it would leave a file; in the way that pickles of attackers do."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return exec, (f"open({str(self.file)!r}, 'w')",)


HAND_WRITTEN = {
    "a global": b"\x80\x02cos\nsystem\n.",
    "a global of a known module": b"\x80\x02ctorch\nload\n.",
    "a stacked global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
    "an instance": b"(S'true'\nios\nsystem\n.",
    "an object": b"(cos\nsystem\nS'true'\no.",
    "a new object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "an extension": b"\x80\x02\x82\x01.",
    "a call of a name that is data": b"\x80\x02X\x04\x00\x00\x00exec)R.",
    "a call of a storage": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "a subclass of dict": b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.",
    "a reference in words": b"Pstorage\n.",
}


@pytest.mark.parametrize("form", [archive_of, stream_of])
@pytest.mark.parametrize("name", ["pickled", *HAND_WRITTEN])
def test_a_malicious_file_is_refused_and_does_nothing(tmp_path, form, name):
    file = tmp_path / "net.pth"
    trap = tmp_path / "trap"
    program = HAND_WRITTEN.get(name) or pickle.dumps({"w": Malice(trap)}, protocol=2)
    file.write_bytes(form(program))
    with pytest.raises(InputError, match=r"net\.pth is refused") as caught:
        torch_files.read(file)
    assert "\n" not in str(caught.value)
    if name == "pickled":
        assert "builtins.exec" in str(caught.value) or "__builtin__.exec" in str(caught.value)
    assert not trap.exists()


def _tensor(shape, strides, offset=0, size=4):
    """A program of one float tensor ``w`` on a storage of ``size`` elements, written by hand."""
    shape, strides = (b"".join(b"J" + struct.pack("<i", n) for n in t) for t in (shape, strides))
    return (
        b"\x80\x02}(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(("
        b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + b"J" + struct.pack("<i", size) + b"tQJ" + struct.pack("<i", offset)
        + b"(" + shape + b"t(" + strides + b"t\x89}tRu."
    )  # fmt: skip


def test_a_tensor_written_by_hand_is_read(tmp_path):
    (tmp_path / "net.pth").write_bytes(
        archive_of(_tensor((2, 2), (1, 2)), [np.arange(4, dtype="<f4").tobytes()])
    )
    assert_same(
        torch_files.read(tmp_path / "net.pth"), {"w": np.array([[0, 2], [1, 3]], np.float32)}
    )


@pytest.mark.parametrize(
    "program",
    [
        _tensor((2, 3), (3, 1)),  # six of four elements
        _tensor((2, 2), (2, 1), offset=1),
        _tensor((2, 2), (2, -1), offset=1),
        _tensor((2, 2), (2, 1), offset=-1),
        _tensor((1 << 20, 1 << 20), (0, 0)),  # a terabyte of one element
        _tensor((2, 2), (2,)),
        _tensor((1,) * 40, (1,) * 40),
        _tensor((1,), (1,), size=1 << 30),
        pickle.dumps([], protocol=2),
        pickle.dumps({"w": 1}, protocol=2),
        pickle.dumps({}, protocol=2),
        b"\x80\x02}(K\x01u.",  # a key without a value
        b"\x80\x02}((tK\x01u.",  # a key that is a tuple
        b"\x80\x02t.",
        b"\x80\x02h\x07.",
        b"\x80\x02",
        b"",
    ],
)
def test_what_is_no_state_dict(tmp_path, program):
    storage = np.arange(4, dtype="<f4").tobytes()
    for content in (
        archive_of(program, [storage]),
        stream_of(program, [struct.pack("<q", 4) + storage]),
    ):
        (tmp_path / "net.pth").write_bytes(content)
        with pytest.raises(InputError, match=r"net\.pth"):
            torch_files.read(tmp_path / "net.pth")


def test_a_packed_archive_is_not_unpacked(tmp_path):
    bomb = archive_of(_tensor((2,), (1,)), [bytes(10_000_000)], zipfile.ZIP_DEFLATED)
    (tmp_path / "net.pth").write_bytes(bomb)
    with pytest.raises(InputError, match="packed"):
        torch_files.read(tmp_path / "net.pth")


@pytest.mark.parametrize("form", WRITTEN)
def test_damage_is_bad_input_or_other_numbers(tmp_path, form):
    content = np.frombuffer(written(form), np.uint8)
    rng = np.random.default_rng(0)
    file = tmp_path / "net.pth"
    for turn in range(300):
        damaged = content.copy()
        places = rng.integers(0, len(content), rng.integers(1, 4))
        damaged[places] = rng.integers(0, 256, len(places))
        kept = rng.integers(0, len(content)) if turn % 3 == 0 else len(content)
        file.write_bytes(damaged[:kept].tobytes())
        # Damage to a number or a name is nothing that a file without checksums shows.
        with contextlib.suppress(InputError):
            arrays = torch_files.read(file)
            assert all(isinstance(array, np.ndarray) for array in arrays.values())


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        torch_files.read(tmp_path / "net.pth")


def test_the_program_is_an_ordinary_pickle():
    """Names and references only: what PyTorch's own reader will be asked for."""
    asked = []

    class Listed(pickle.Unpickler):
        def find_class(self, module, name):
            asked.append(f"{module}.{name}")
            return (lambda *_: {}) if name == "OrderedDict" else (lambda *arguments: arguments[2])

        def persistent_load(self, reference):
            return reference[0], reference[2:]

    made = Listed(io.BytesIO(program_of(TENSORS))).load()
    assert made == {name: array.shape for name, array in TENSORS.items()}
    assert set(asked) == {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor_v2",
        "torch.FloatStorage",
        "torch.LongStorage",
    }
