package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"gpm/supervisor/internal/aim"
)

// Stack of the program.
const (
	fpKey    = -4  // u32: of a map
	fpCtx    = -16 // the program's argument
	fpUsed   = -24 // u64: slots in use
	fpIPHead = -64 // 40 bytes: IPv6 header, or IPv4 and the beginning of TCP
)

// newProgram loads the program of a group. It chooses by the slots map only, so
// it is attached once. Its choice: for who is aimed at a slot, that slot or refuse;
// else the lowest key, which is class, then load or a random number, then slot.
// If that slot's socket has just been closed, the second lowest; if that fails
// too, the kernel's hash. Nobody open: refuse.
//
// It looks at the first bound slots: the verifier walks through every turn of
// the loop, which takes it 40 ms for all of them.
func newProgram(s *slots, bound int) (*ebpf.Program, error) {
	p, err := load(s, bound)
	if raised(err) {
		p, err = load(s, bound)
	}
	return p, err
}

func load(s *slots, bound int) (*ebpf.Program, error) {
	spec := &ebpf.ProgramSpec{
		Name: "gpm_steer", Type: ebpf.SkReuseport, License: "Apache-2.0",
		// The queue of a listener that is closed moves to the others (5.14).
		AttachType:   ebpf.AttachSkReuseportSelectOrMigrate,
		Instructions: instructions(s.socks.FD(), s.table.FD(), bound),
	}
	p, err := ebpf.NewProgram(spec)
	if errors.Is(err, unix.EINVAL) {
		spec.AttachType = ebpf.AttachSkReuseportSelect
		p, err = ebpf.NewProgram(spec)
	}
	if err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	return p, nil
}

func instructions(socks, table, bound int) asm.Instructions {
	var p asm.Instructions
	p = append(p, asm.StoreMem(asm.RFP, fpCtx, asm.R1, asm.DWord), asm.Mov.Reg(asm.R6, asm.R1))
	p = append(p, byAim(socks)...)
	p = append(p, prepare(table)...)
	p = append(p, lowest(bound)...)
	p = append(p, choose(socks)...)
	return append(p,
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"), // SK_PASS; with nothing selected: the kernel's hash
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("drop"), // SK_DROP: refused
		asm.Return(),
	)
}

// headShift is what aim.HeadMask leaves away.
const headShift = 12

// byAim obeys the mark of package aim. A slot that has no socket refuses: who
// asks for one listener must not be answered by another.
func byAim(socks int) asm.Instructions {
	byteAt := func(to asm.Register, i int16) asm.Instruction {
		return asm.LoadMem(to, asm.RFP, fpIPHead+i, asm.Byte)
	}
	wordAt := func(to asm.Register, i int16) asm.Instruction {
		return asm.LoadMem(to, asm.RFP, fpIPHead+i, asm.DWord)
	}
	p := asm.Instructions{
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, fpIPHead),
		asm.Mov.Imm(asm.R4, 40),
		asm.Mov.Imm(asm.R5, 1),            // from the IP header
		asm.FnSkbLoadBytesRelative.Call(), // fails when a queue migrates: no packet then
		asm.JNE.Imm(asm.R0, 0, "prepare"),
		byteAt(asm.R1, 0),
		asm.RSh.Imm(asm.R1, 4),
		asm.JEq.Imm(asm.R1, 6, "ipv6"),
		asm.JNE.Imm(asm.R1, 4, "prepare"),
		byteAt(asm.R1, 12),
		asm.JNE.Imm(asm.R1, aim.SourceNet>>8, "prepare"),
		byteAt(asm.R1, 13),
		asm.JNE.Imm(asm.R1, aim.SourceNet&0xff, "prepare"),
		byteAt(asm.R7, 14),
		asm.LSh.Imm(asm.R7, 8),
		byteAt(asm.R2, 15),
		asm.Or.Reg(asm.R7, asm.R2),
		asm.Ja.Label("aimed"),

		asm.LoadMem(asm.R7, asm.RFP, fpIPHead, asm.Word).WithSymbol("ipv6"),
		asm.HostTo(asm.BE, asm.R7, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.RSh.Imm(asm.R2, headShift),
		asm.JNE.Imm(asm.R2, aim.Head>>headShift, "prepare"),
		wordAt(asm.R1, 8), // from an address to itself
		wordAt(asm.R2, 24),
		asm.JNE.Reg(asm.R1, asm.R2, "prepare"),
		wordAt(asm.R1, 16),
		wordAt(asm.R2, 32),
		asm.JNE.Reg(asm.R1, asm.R2, "prepare"),
		asm.And.Imm(asm.R7, 1<<headShift-1),
	}
	slot := selectSlot(socks)
	slot[0] = slot[0].WithSymbol("aimed")
	p = append(p, slot...)
	return append(p, asm.JEq.Imm(asm.R0, 0, "pass"), asm.Ja.Label("drop"))
}

// selectSlot tries the slot in R7; R0 is 0 if its socket gets the connection.
func selectSlot(socks int) asm.Instructions {
	return asm.Instructions{
		asm.StoreMem(asm.RFP, fpKey, asm.R7, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, fpCtx, asm.DWord),
		asm.LoadMapPtr(asm.R2, socks),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, fpKey),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkSelectReuseport.Call(),
	}
}

// prepare reads the header. After it R9 is the table, R3 the seed of the mix,
// R4 what counts of a word, R0 what counts of the mix.
func prepare(table int) asm.Instructions {
	const hash = 32 // offset in struct sk_reuseport_md
	return asm.Instructions{
		asm.StoreImm(asm.RFP, fpKey, 0, asm.Word).WithSymbol("prepare"),
		asm.LoadMapPtr(asm.R1, table),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, fpKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(asm.R9, asm.R0),
		asm.LoadMem(asm.R7, asm.R9, 0, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.And.Imm(asm.R1, 0xffff),
		asm.StoreMem(asm.RFP, fpUsed, asm.R1, asm.DWord),
		asm.RSh.Imm(asm.R7, 16),
		asm.And.Imm(asm.R7, 0xffff),
		asm.JEq.Imm(asm.R7, chooseKernel, "pass"),
		asm.LoadMem(asm.R8, asm.R6, hash, asm.Word),
		asm.JNE.Imm(asm.R7, chooseRandom, "seeded"),
		asm.FnGetPrandomU32.Call(),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.Mov.Reg(asm.R3, asm.R8).WithSymbol("seeded"),
		asm.LoadImm(asm.R4, -1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0),
		asm.JEq.Imm(asm.R7, chooseLeast, "search"),
		asm.LoadImm(asm.R4, ^int64(loadMask), asm.DWord),
		asm.LoadImm(asm.R0, 0xffffffff, asm.DWord),
	}
}

// noKey is above the keys of all who are open.
const noKey = int64(awayBit) << indexBits

// lowest leaves the lowest key in R8 and the second lowest in R6. It has no
// branch but the loop's own, or the verifier would follow 2^slots paths.
func lowest(bound int) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R7, 0).WithSymbol("search"),
		asm.LoadImm(asm.R8, noKey, asm.DWord),
		asm.Mov.Reg(asm.R6, asm.R8),

		asm.LoadMem(asm.R1, asm.RFP, fpUsed, asm.DWord).WithSymbol("loop"),
		asm.JGE.Reg(asm.R7, asm.R1, "found"),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.LSh.Imm(asm.R1, 3),
		asm.Add.Reg(asm.R1, asm.R9),
		asm.LoadMem(asm.R1, asm.R1, 8, asm.DWord),
		asm.And.Reg(asm.R1, asm.R4),

		// A number for slot and seed: rendezvous hashing, so that a slot which
		// comes or goes changes the choice of nobody else.
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, 1),
		asm.Mul.Imm(asm.R2, 0x5bd1e995),
		asm.Xor.Reg(asm.R2, asm.R3),
		asm.Mul.Imm(asm.R2, 0x2c1b3c6d),
		asm.Mov.Reg(asm.R5, asm.R2),
		asm.RSh.Imm(asm.R5, 15),
		asm.Xor.Reg(asm.R2, asm.R5),
		asm.Mul.Imm(asm.R2, 0x297a2d39),
		asm.RSh.Imm(asm.R2, 16),
		asm.And.Reg(asm.R2, asm.R0),
		asm.Add.Reg(asm.R1, asm.R2),

		asm.LSh.Imm(asm.R1, indexBits),
		asm.Or.Reg(asm.R1, asm.R7),
		asm.Mov.Reg(asm.R2, asm.R1), // R2 = min(0, key-lowest)
		asm.Sub.Reg(asm.R2, asm.R8),
		asm.Mov.Reg(asm.R5, asm.R2),
		asm.ArSh.Imm(asm.R5, 63),
		asm.And.Reg(asm.R2, asm.R5),
		asm.Add.Reg(asm.R8, asm.R2), // the lower of the two
		asm.Sub.Reg(asm.R1, asm.R2), // the higher, against the second
		asm.Sub.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R5, asm.R1),
		asm.ArSh.Imm(asm.R5, 63),
		asm.And.Reg(asm.R1, asm.R5),
		asm.Add.Reg(asm.R6, asm.R1),

		asm.Add.Imm(asm.R7, 1),
		asm.JLT.Imm(asm.R7, int32(bound), "loop"),
	}
}

// choose selects by the keys that lowest left, and counts.
func choose(socks int) asm.Instructions {
	p := asm.Instructions{
		asm.LoadImm(asm.R1, noKey, asm.DWord).WithSymbol("found"),
		asm.JGE.Reg(asm.R8, asm.R1, "drop"),
		asm.Mov.Reg(asm.R7, asm.R8),
		asm.And.Imm(asm.R7, 1<<indexBits-1),
	}
	p = append(p, selectSlot(socks)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "count"),
		asm.LoadImm(asm.R1, noKey, asm.DWord),
		asm.JGE.Reg(asm.R6, asm.R1, "pass"),
		asm.Mov.Reg(asm.R7, asm.R6),
		asm.And.Imm(asm.R7, 1<<indexBits-1),
	)
	p = append(p, selectSlot(socks)...)
	return append(p,
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.JGE.Imm(asm.R7, maxSlots, "pass").WithSymbol("count"), // never; for the verifier
		asm.LSh.Imm(asm.R7, 3),
		asm.Add.Reg(asm.R9, asm.R7),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R9, asm.R1, asm.DWord, 8),
	)
}
