/**
 * The only machine code of the project: what a thread runs when it touches memory that is not there (SIGBUS), where no
 * JavaScript can run. bus-faults.ts places it and fills the words that it reads; docs/architecture.md says why it is
 * needed and why it is safe. Nothing but constants.
 *
 *     if the fault is one of missing memory and its address is a guest's:
 *         mmap zero pages over the unit in which it lies; leave a mark; write to the eventfd; return
 *     else, or when mmap refused:
 *         give the signal its default action back; send it to this thread again, as it came; return
 *
 * The words, 0x10000 bytes after the beginning of the code (a page of the largest size, so that they are writable and
 * the code is not):
 *
 *     0   address of the table: two bytes for each 2 MiB of addresses: unit (as a shift; 0: not a guest's), mark
 *     8   entries of the table
 *     16  the eventfd
 *     24  the number 1, which is written to it
 *     32  struct kernel_sigaction of the default action: 32 bytes of zeros
 *
 * A signal handler (SA_SIGINFO) gets the siginfo as second argument: signal, errno, code at 8, address at 16. System
 * calls are made directly, so errno stays as it is; the kernel has stepped over the red zone and saved every register,
 * and gives them all back when the handler returns: none needs saving here but the stack pointer. Nothing is called.
 * The signal is blocked meanwhile in this thread, and in no other: several may be here at once. What they write to is
 * a byte of the table, always the same value, and the eventfd.
 *
 * A line is: bytes | assembly | why. A test assembles the second column and compares it with the first.
 */

/** Where the words lie from the beginning of the code, in bytes. */
export const WORDS_OFFSET_BYTES = 0x1_0000;
/** Addresses that one entry of the table stands for, in bytes: `1 << 21` in the code. */
export const GRANULE_BYTES = 2 ** 21;

/** System V calling convention: the siginfo is in rsi; rbx, rcx, r11 to r14 and rax are ours. GNU as, Intel syntax. */
export const X64_LISTING = `
49 89 f4             | mov r12, rsi                           | the siginfo
48 8d 1d f6 ff 00 00 | lea rbx, [rip + 0xfff6]                | our words: 0x10000 after the beginning
41 8b 44 24 08       | mov eax, [r12 + 8]                     | si_code
83 e8 02             | sub eax, 2                             | BUS_ADRERR (2), BUS_OBJERR, BUS_MCEERR_AR, BUS_MCEERR_AO (5): memory that is not there
83 f8 03             | cmp eax, 3
77 6c                | ja others                              | alignment, kill(2) and the like
4d 8b 6c 24 10       | mov r13, [r12 + 16]                    | si_addr
4c 89 e8             | mov rax, r13
48 c1 e8 15          | shr rax, 21                            | the granule
48 3b 43 08          | cmp rax, [rbx + 8]
73 5a                | jae others                             | beyond the table
4c 8b 33             | mov r14, [rbx]
4d 8d 34 46          | lea r14, [r14 + rax*2]                 | its entry
41 0f b6 0e          | movzx ecx, byte ptr [r14]              | the unit, as a shift
85 c9                | test ecx, ecx
74 4b                | jz others                              | no guest's memory
be 01 00 00 00       | mov esi, 1
48 d3 e6             | shl rsi, cl                            | length: the unit
48 89 f7             | mov rdi, rsi
48 f7 df             | neg rdi
4c 21 ef             | and rdi, r13                           | address: the unit's beginning
ba 03 00 00 00       | mov edx, 3                             | PROT_READ | PROT_WRITE
41 ba 32 40 00 00    | mov r10d, 0x4032                       | MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE
49 c7 c0 ff ff ff ff | mov r8, -1
45 31 c9             | xor r9d, r9d
b8 09 00 00 00       | mov eax, 9                             | mmap
0f 05                | syscall
48 39 f8             | cmp rax, rdi
75 19                | jne others                             | refused
41 c6 46 01 01       | mov byte ptr [r14 + 1], 1              | the mark
8b 7b 10             | mov edi, [rbx + 16]
48 8d 73 18          | lea rsi, [rbx + 24]
ba 08 00 00 00       | mov edx, 8
b8 01 00 00 00       | mov eax, 1                             | write: the eventfd
0f 05                | syscall
c3                   | ret                                    | the access is tried again
bf 07 00 00 00       | others: mov edi, 7                     | SIGBUS
48 8d 73 20          | lea rsi, [rbx + 32]
31 d2                | xor edx, edx
41 ba 08 00 00 00    | mov r10d, 8
b8 0d 00 00 00       | mov eax, 13                            | rt_sigaction: the default
0f 05                | syscall
b8 ba 00 00 00       | mov eax, 186                           | gettid
0f 05                | syscall
41 89 c5             | mov r13d, eax
b8 27 00 00 00       | mov eax, 39                            | getpid
0f 05                | syscall
89 c7                | mov edi, eax
44 89 ee             | mov esi, r13d
ba 07 00 00 00       | mov edx, 7
4d 89 e2             | mov r10, r12
b8 29 01 00 00       | mov eax, 297                           | rt_tgsigqueueinfo: the same signal again, delivered by the return
0f 05                | syscall
c3                   | ret
`;

/** AAPCS64: the siginfo is in x1, the return address in x30, which stays; x8 is the system call's number. GNU as. */
export const ARM64_LISTING = `
f4 03 01 aa          | mov x20, x1                            | the siginfo
f3 ff 07 10          | adr x19, . + 0xfffc                    | our words: 0x10000 after the beginning
89 0a 40 b9          | ldr w9, [x20, #8]                      | si_code
29 09 00 51          | sub w9, w9, #2                         | BUS_ADRERR (2), BUS_OBJERR, BUS_MCEERR_AR, BUS_MCEERR_AO (5): memory that is not there
3f 0d 00 71          | cmp w9, #3
e8 03 00 54          | b.hi others                            | alignment, kill(2) and the like
95 0a 40 f9          | ldr x21, [x20, #16]                    | si_addr
a9 fe 55 d3          | lsr x9, x21, #21                       | the granule
6a 06 40 f9          | ldr x10, [x19, #8]
3f 01 0a eb          | cmp x9, x10
42 03 00 54          | b.hs others                            | beyond the table
76 02 40 f9          | ldr x22, [x19]
d6 06 09 8b          | add x22, x22, x9, lsl #1               | its entry
ca 02 40 39          | ldrb w10, [x22]                        | the unit, as a shift
ca 02 00 34          | cbz w10, others                        | no guest's memory
21 00 80 d2          | mov x1, #1
21 20 ca 9a          | lsl x1, x1, x10                        | length: the unit
e0 03 01 cb          | neg x0, x1
00 00 15 8a          | and x0, x0, x21                        | address: the unit's beginning
f7 03 00 aa          | mov x23, x0
62 00 80 d2          | mov x2, #3                             | PROT_READ | PROT_WRITE
43 06 88 d2          | mov x3, #0x4032                        | MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE
04 00 80 92          | mov x4, #-1
05 00 80 d2          | mov x5, #0
c8 1b 80 d2          | mov x8, #222                           | mmap
01 00 00 d4          | svc #0
1f 00 17 eb          | cmp x0, x23
21 01 00 54          | b.ne others                            | refused
29 00 80 52          | mov w9, #1
c9 06 00 39          | strb w9, [x22, #1]                     | the mark
60 12 40 b9          | ldr w0, [x19, #16]
61 62 00 91          | add x1, x19, #24
02 01 80 d2          | mov x2, #8
08 08 80 d2          | mov x8, #64                            | write: the eventfd
01 00 00 d4          | svc #0
c0 03 5f d6          | ret                                    | the access is tried again
e0 00 80 d2          | others: mov x0, #7                     | SIGBUS
61 82 00 91          | add x1, x19, #32
02 00 80 d2          | mov x2, #0
03 01 80 d2          | mov x3, #8
c8 10 80 d2          | mov x8, #134                           | rt_sigaction: the default
01 00 00 d4          | svc #0
48 16 80 d2          | mov x8, #178                           | gettid
01 00 00 d4          | svc #0
f5 03 00 aa          | mov x21, x0
88 15 80 d2          | mov x8, #172                           | getpid
01 00 00 d4          | svc #0
e1 03 15 aa          | mov x1, x21
e2 00 80 d2          | mov x2, #7
e3 03 14 aa          | mov x3, x20
08 1e 80 d2          | mov x8, #240                           | rt_tgsigqueueinfo: the same signal again, delivered by the return
01 00 00 d4          | svc #0
c0 03 5f d6          | ret
`;

/** The listing for a processor as Node names it; null: there is none. */
export function busFaultListing(arch: string): string | null {
  if (arch === 'x64') return X64_LISTING;
  return arch === 'arm64' ? ARM64_LISTING : null;
}

/** The first column of a listing. */
export function machineCode(listing: string): Uint8Array {
  const bytes = listing
    .trim()
    .split('\n')
    .flatMap((line) => line.split('|')[0].trim().split(' '));
  return Uint8Array.from(bytes, (byte) => Number.parseInt(byte, 16));
}

/** The second column, for an assembler. */
export function assemblyOf(listing: string): string {
  const lines = listing.trim().split('\n');
  return `${lines.map((line) => line.split('|')[1].trim()).join('\n')}\n`;
}
