# Runs tests/test_helper.tcl of the suite, with two additions that it has no option for: each test's name is printed when
# the test begins, and with REDISHA_RESP3 set every client begins with HELLO 3.
#
# The suite starts its second process from [info script]. The text is evaluated here instead of sourced, so that this
# file is the second process as well.

fconfigure stdout -buffering line

proc announce {name element operation} {
    set state [set ${name}($element)]
    if {[regexp {^\(IN PROGRESS\) (.*)$} $state -> test]} {
        puts "\[testing\]: $test"
    }
}
trace add variable ::active_clients_task write announce

proc speak_resp3 {} {
    rename redis redis_resp2
    proc redis {args} {
        set client [redis_resp2 {*}$args]
        # A server that wants a password first stays with RESP2 until the test asks for more.
        catch {
            $client hello 3
            if {[lindex $args 2] eq 1} {$client read}
        }
        return $client
    }
}

if {[info exists ::env(REDISHA_RESP3)]} {
    rename source source_file
    proc source {path} {
        uplevel 1 [list source_file $path]
        if {$path eq "tests/support/redis.tcl"} speak_resp3
    }
}

set file [open tests/test_helper.tcl]
set text [read $file]
close $file
eval $text
