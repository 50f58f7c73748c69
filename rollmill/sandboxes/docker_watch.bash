# Counts what the processes of another container use, and kills them where a limit is exceeded.
#
# It runs in a container of the same image, whose files nobody can write, in the process namespace of the sandbox. It is
# controlled by lines of standard input, and answers in lines:
#
#   begin  a command begins; answer: begun
#   end    kill what the command has left; answer: ended OOM_KILLS
#
# While a command runs it writes "." at least once a second, "counting" before it stops the processes to count files,
# and "over cpu", "over memory" or "over disk" when it kills them. Its first line is
# "ready SINCE PID COUNTERS", or "fault TEXT".
#
# $0: name of the sandbox, the last argument of its first process. $1: time in seconds from which on changed files
# count, empty for now. $2 to $4: limits in CPU microseconds, bytes of memory, and blocks (512 bytes) of files.
# Further arguments: folders of the sandbox that are file systems of their own.

export LC_ALL=C
shopt -s nullglob
exec 2> /dev/null
user=65302 rights=-all,+sys_ptrace,+kill,+dac_read_search
as_other=(setpriv --reuid $user --regid $user --clear-groups --inh-caps=$rights --ambient-caps=$rights)
pid=0
# Root in the sandbox has no capability, so it can neither signal nor trace another user's process. Without setpriv the
# processes of an image whose user is root can end this one; PID tells that, and the client ends their command then.
if (( UID == 0 )); then
    if "${as_other[@]}" /bin/bash -c :; then
        exec "${as_other[@]}" /bin/bash -c "$BASH_EXECUTION_STRING" "$0" "$@"
    fi
    pid=$$
fi

since=$1 cpu_limit=$2 memory_limit=$3 disk_limit=$4
root=/proc/1/root
folders=("$root/")
for folder in "${@:5}"; do folders+=("$root$folder/"); done
files=("${folders[@]}")
for file in hosts hostname resolv.conf; do  # the engine mounts these from its own disk
    [[ -f $root/etc/$file ]] && files+=("$root/etc/$file")
done

mapfile -d '' -t words < /proc/1/cmdline
if [[ ${words[-1]} != "$0" ]]; then
    echo "fault process 1 is not the sandbox's: it may have no process namespace of its own"
    exit 1
fi

# Paths in /sys/fs/cgroup are not trusted: with version 1, root in the sandbox can write to that folder. What is mounted
# in it cannot be changed or renamed.
cpu_file='' usage_file='' stat_file='' oom_file='' version=1
while read -r _ _ _ _ to _ rest; do
    folder=$root$to
    case "${rest##*- }," in
    cgroup\ *[\ ,]cpuacct,*) cpu_file=$folder/cpuacct.usage ;;
    cgroup\ *[\ ,]memory,*) usage_file=$folder/memory.usage_in_bytes stat_file=$folder/memory.stat oom_file=$folder/memory.oom_control ;;
    cgroup2\ *)
        [[ -r $folder/memory.current ]] || continue
        version=2
        cpu_file=$folder/cpu.stat usage_file=$folder/memory.current stat_file=$folder/memory.stat oom_file=$folder/memory.events
        ;;
    esac
done < /proc/1/mountinfo

now_us() {  # sets `now`, in microseconds
    if [[ $EPOCHREALTIME ]]; then now=${EPOCHREALTIME/./}; else now=$(date +%s%6N); fi
}

read_cpu() {  # sets `cpu`, in microseconds of all processes that were ever in the container
    cpu=0
    [[ -r $cpu_file ]] || return
    if (( version == 1 )); then
        read -r cpu < "$cpu_file"
        cpu=$(( cpu / 1000 ))
    else
        read -r _ cpu < "$cpu_file"
    fi
}

read_oom() {  # sets `oom`, the number of processes that were killed for lack of memory
    local name value
    oom=0
    [[ -r $oom_file ]] || return
    while read -r name value; do [[ $name == oom_kill ]] && oom=$value; done < "$oom_file"
}

read_sockstat() {  # sets `sockets` of the sandbox, and `traffic`, the bytes in TCP's and UDP's buffers of the machine
    local name rest
    sockets=0 traffic=0
    while read -r name rest; do
        case $name in
        sockets:) sockets=${rest#used } ;;
        TCP: | UDP:) (( version == 1 && (traffic += ${rest##* } * 4096) )) ;;
        esac
    done < /proc/1/net/sockstat
}

read_netlink() {  # sets `netlink`, the bytes in the buffers of the sandbox's netlink sockets
    local lines line columns
    netlink=0
    # Not `read` from the file: it would go back after each line, for which the kernel begins the table anew.
    mapfile -t lines < /proc/1/net/netlink
    for line in "${lines[@]:1}"; do
        columns=($line)
        netlink=$(( netlink + columns[4] + columns[5] ))
    done
}

read_traffic() {  # sets `traffic` to the bytes in TCP's and UDP's buffers of the sandbox; slow, whatever their number
    local lines line columns protocol queues=0 datagrams=0 used=0 most grown
    for protocol in udp udp6 raw raw6 tcp tcp6; do
        [[ -r /proc/1/net/$protocol ]] || continue
        [[ $protocol == tcp ]] && datagrams=$queues queues=0
        mapfile -t lines < "/proc/1/net/$protocol"
        for line in "${lines[@]:1}"; do
            columns=($line)
            [[ ${columns[4]} == *[1-9A-F]* ]] || continue
            queues=$(( queues + 16#${columns[4]%:*} + 16#${columns[4]#*:} ))
            [[ $protocol == tcp* ]] && (( used += 1 ))
        done
    done
    # Small segments take far more than their bytes: what the buffers of the whole machine have grown by is the
    # sandbox's, up to the default maximum of 10 MiB for each of its sockets that holds any.
    grown=$(( traffic - traffic_before - datagrams )) most=$(( used * 10 << 20 ))
    (( grown < most )) && most=$grown
    traffic=$(( datagrams + (queues > most ? queues : most) ))
}

# Control groups count most memory, and the kernel enforces that limit. Version 1 does not count what TCP and UDP hold,
# and neither version what netlink holds; UNIX sockets, pipes, page tables and files in memory are counted.
memory_is_over() {
    local name value held=0 grown over=1
    read_sockstat
    grown=$(( traffic - traffic_before )) netlink=0
    (( grown > 0 && sockets )) || grown=0
    (( sockets << 19 > memory_limit / 8 )) && read_netlink
    (( grown + netlink > memory_limit / 8 )) || return
    [[ -r $usage_file ]] && read -r held < "$usage_file"
    while read -r name value; do  # the files that it caches can be dropped
        [[ $name == active_file || $name == inactive_file ]] && held=$(( held - value ))
    done < "$stat_file"
    (( held + netlink > memory_limit )) && return
    (( held + netlink + grown > memory_limit && now >= memory_earliest )) || return
    echo counting
    stop_all
    read_traffic
    if (( held + netlink + traffic > memory_limit )); then over=0; else kill -CONT -1; fi
    local began=$now
    now_us
    memory_earliest=$(( now + 4 * (now - began) ))
    return $over
}

read_free() {  # sets `free`, in blocks of 512 bytes, and `inodes`
    local blocks size number
    free=0 inodes=0
    while read -r blocks size number; do
        free=$(( free + blocks * (size / 512) )) inodes=$(( inodes + number ))
    done < <(exec stat -f -c '%f %S %d' -- "${folders[@]}")
}

read_written() {  # adds to `written`, in blocks, what the processes have written to disk, once or again
    local file lines sum=0
    for file in /proc/[0-9]*/io; do
        lines=()
        mapfile -t lines < "$file"
        [[ ${lines[5]} == write_bytes:* ]] && (( sum += ${lines[5]#* } / 512 ))
    done
    # A process passes its sum on when its parent waits for it, so it may be missing for a moment.
    (( sum > written_sum && (written += sum - written_sum) ))
    written_sum=$sum
}

count_files() {  # sets `counted`, the blocks of all files that were changed since the start, deleted open ones included
    local sum links file blocks path device
    local -A kinds
    # The engine's clock, not the image's times: nobody can set the time at which an inode changes. A file with n names
    # is listed n times. Each name costs 2 KiB more, for its inode and in its folder.
    sum=$(find "${files[@]}" -xdev -newerct "@$since" -printf '+%b/%n+4')
    counted=$(( 0$sum ))
    # The leader of a thread group that has ended has no files, so every thread counts.
    while read -r links file blocks path; do
        (( links == 0 )) || continue
        device=${file%:*}
        [[ ${kinds[$device]} ]] || kinds[$device]=$(stat -L -f -c %T -- "$path")
        [[ ${kinds[$device]} == tmpfs ]] || counted=$(( counted + blocks ))
    done < <(
        find /proc/[0-9]*/task/[0-9]*/fd -mindepth 1 -maxdepth 1 -lname '* (deleted)' -print0 |
            xargs -0 -r stat -L -c '%h %D:%i %b %n' -- | sort -u -k 1,2
    )
}

holds_hidden_files() {
    # Of deleted files that are mapped, in flight in a socket, or registered at an io_uring, the size cannot be seen.
    grep -rqsE '^(scm_fds|UserFiles):[[:space:]]*[1-9]' /proc/[0-9]*/task/[0-9]*/fdinfo && return
    grep -hsE ' \(deleted\)$' /proc/[0-9]*/task/[0-9]*/maps |
        grep -qvE ' 00:0[0-9a-f] [0-9]+ +/(memfd:|dev/zero|SYSV)| +/dev/shm/'
}

stop_all() {  # stops all processes but the first and this one, and waits until none runs, for at most 0.2 s
    local tries file line
    kill -STOP -1
    for (( tries = 0; tries < 40; tries++ )); do
        for file in /proc/[0-9]*/task/[0-9]*/stat; do
            [[ $file == /proc/1/* || $file == "/proc/$$/"* ]] && continue
            line=''
            read -r line < "$file"
            [[ ${line##*) } == [RDS]* ]] && break
        done
        [[ ${line##*) } == [RDS]* ]] || break
        line=''
        read -rt 0.005 -u "$never"
    done
}

disk_is_over() {  # $1: whether the processes are stopped meanwhile, so that they cannot move files ahead of the search
    local began=$now over=1 counted_stopped=$counted
    if [[ $1 ]]; then
        echo counting
        stop_all
        read_written
        read_free
        free_counted=$free inodes_counted=$inodes written_counted=$written
    fi
    count_files
    (( counted > allowed )) && over=0
    if [[ $1 ]]; then
        # Its size cannot be seen, but that the command has written more than the limit, and that space is missing. Other
        # programs may have freed space meanwhile.
        if (( over && written - written_before > disk_limit )) && holds_hidden_files; then
            (( free_before - free > disk_limit / 4 )) && over=0
            (( written_counted -= disk_limit * 7 / 8 ))  # look again after an eighth of the limit
        fi
        if (( over )); then kill -CONT -1; fi
    else
        counted=$counted_stopped  # what was counted meanwhile may lack files that were moved
    fi
    now_us
    # At most half of the time for what is likely, a tenth for the routine.
    earliest=$(( now + (now - began) )) routine=$(( now + 1000000 + 9 * (now - began) ))
    return $over
}

check_disk() {  # returns 0 where the limit is exceeded
    # A command after one that has exceeded it has a second to delete files, but not to add any.
    allowed=$disk_limit
    (( now < command_began + 1000000 && counted_before > disk_limit )) && allowed=$(( counted_before + disk_limit / 16 ))
    read_written
    local grown=$(( written - written_counted )) fell names
    # The space that is free on the whole disk tells what no process's account has, such as names. It takes a process.
    if (( now >= free_next )); then
        local began=$now
        read_free
        now_us
        free_next=$(( now + 10 * (now - began) ))
        (( free_next < now + 100000 )) && free_next=$(( now + 100000 ))
        fell=$(( free_counted - free )) names=$(( (inodes_counted - inodes) * 4 ))
        (( fell > grown )) && grown=$fell
        (( names > grown )) && grown=$names
    fi
    if (( now >= earliest && counted + grown > allowed )); then
        disk_is_over stopped
    elif (( now >= routine )); then
        disk_is_over '' && disk_is_over stopped
    else
        return 1
    fi
}

check() {  # sets `over` to the limit that is exceeded, and `pause` to the seconds until the next check
    local began
    now_us
    began=$now
    read_cpu
    if [[ $cpu_file ]] && (( cpu - cpu_before > cpu_limit )); then
        over=cpu
    elif (( cpu - cpu_looked >= shortest / 4 )) || [[ ! $cpu_file ]]; then  # an idle command writes nothing
        cpu_looked=$cpu
        if memory_is_over; then
            over=memory
        elif check_disk; then
            over=disk
        fi
    fi
    now_us
    local wait=$(( 4 * (now - began) ))
    (( wait < shortest )) && wait=$shortest
    printf -v pause '0.%06d' $(( wait > 500000 ? 500000 : wait ))
    if (( now - told > 300000 )) && [[ ! $over ]]; then
        echo .
        told=$now
    fi
}

end_all() {  # kills all processes except the first and this one, and waits until they have ended
    local processes tries
    kill -9 -1
    for (( tries = 0; tries < 200; tries++ )); do
        processes=(/proc/[0-9]*)
        (( ${#processes[@]} <= 2 )) && break
        read -rt 0.01 -u "$never"
        (( tries % 10 )) || kill -9 -1
    done
}

exec {never}<> <(:)
[[ $since ]] && restarted=1 || since=$(date +%s.%N)
now_us
read_free
written=0 written_sum=0
read_written
free_counted=$free inodes_counted=$inodes written_counted=$written counted=0 free_next=0 earliest=0 memory_earliest=0 routine=$(( now + 1000000 )) told=0
if [[ $restarted ]]; then count_files; fi
# The time in which a disk of 4 GB/s writes an eighth of the limit, or 32 cores use as much CPU time; from 4 to 100 ms.
shortest=$(( disk_limit * 512 / 8 / 4000 ))
(( cpu_limit / 8 / 32 < shortest )) && shortest=$(( cpu_limit / 8 / 32 ))
(( shortest < 4000 )) && shortest=4000
(( shortest > 100000 )) && shortest=100000
printf -v pause '0.%06d' "$shortest"
running=
echo "ready $since $pid ${cpu_file:+cpu} ${usage_file:+memory}"
while :; do
    if [[ $running ]]; then read -rt "$pause" order; else read -r order; fi
    code=$?
    if (( code > 128 )); then
        check
        [[ $over ]] || continue
        echo "over $over"  # first, so that it arrives before the engine reports that the command has ended
        kill -9 -1
        running=
    elif (( code )); then
        exit 0  # the client has ended
    elif [[ $order == begin ]]; then
        read_cpu
        read_sockstat
        read_free
        read_written
        written_before=$written
        cpu_before=$cpu cpu_looked=$cpu traffic_before=$traffic free_before=$free running=1 over='' told=0
        now_us
        command_began=$now counted_before=$counted
        (( counted > disk_limit && earliest < now + 1000000 )) && routine=$(( now + 1000000 ))
        echo begun
    else
        end_all
        read_oom
        running=
        echo "ended $oom"
    fi
done
