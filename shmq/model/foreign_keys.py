"""Keys of RocketMQ's configuration files that shmq does not honour: the harmless ones and those that stop it.

A harmless key gives one warning line that says why it is ignored. A key whose silent loss would break a
promise the operator relies on (access control, replication, another storage engine) is an error once it is
switched on. Facts: Apache RocketMQ 5.3, BrokerConfig.java, MessageStoreConfig.java, NettyServerConfig.java,
NamesrvConfig.java.
"""

from __future__ import annotations

SPELLINGS = {
    "transactionMsgTimeout": "transactionTimeOut",
    "redelateHangedFileInterval": "redeleteHangedFileInterval",
    "checkCrcOnRecover": "checkCRCOnRecover",
    "brokerIp1": "brokerIP1",
    "brokerIp2": "brokerIP2",
    "accessMessageInMemoryMaxRation": "accessMessageInMemoryMaxRatio",
}
"""Other spellings met in documents and examples; `maped`/`mapped` is folded for every key."""

REFUSED = {
    "aclEnable": "access control is not built yet, and the broker must not run open instead",
    "authenticationEnabled": "access control is not built yet, and the broker must not run open instead",
    "authorizationEnabled": "access control is not built yet, and the broker must not run open instead",
    "enableDLegerCommitLog": "the DLedger log has another format; shmq keeps a CommitLog",
    "enableControllerMode": "controller mode is not built; remove the key",
    "duplicationEnable": "not built; remove the key",
    "enableSlaveActingMaster": "replication is not built yet",
    "enabledAppendPropCRC": "records with a properties checksum are not written",
    "tieredStoreEnable": "tiered storage is not built",
}
"""Keys that stop the start when their value is true."""

_PROCESSES = "work is spread over processes here: brokerWorkers"
_LAYOUT = "files always lie in their standard places below storePathRootDir"
_PAGE_CACHE = "the shared maps are the page cache; there is no private buffer to warm or to lock"
_NETTY = "tunes the Java network layer"
_TIMERS = "timers are kept to the millisecond, by one process, and made again from the log when needed"
_LATER = "not built yet"
_NONE = "has no counterpart here"

_REASONS: dict[str, str] = {
    _PROCESSES: """
        sendMessageThreadPoolNums pullMessageThreadPoolNums litePullMessageThreadPoolNums
        queryMessageThreadPoolNums putMessageFutureThreadPoolNums adminBrokerThreadPoolNums
        clientManageThreadPoolNums consumerManageThreadPoolNums heartbeatThreadPoolNums
        processReplyMessageThreadPoolNums endTransactionThreadPoolNums ackMessageThreadPoolNums
        loadBalanceThreadPoolNums recoverThreadPoolNums groupTransferThreadPoolNums
        defaultThreadPoolNums clientRequestThreadPoolNums sendThreadPoolQueueCapacity
        pullThreadPoolQueueCapacity litePullThreadPoolQueueCapacity replyThreadPoolQueueCapacity
        queryThreadPoolQueueCapacity clientManagerThreadPoolQueueCapacity
        consumerManagerThreadPoolQueueCapacity heartbeatThreadPoolQueueCapacity
        endTransactionPoolQueueCapacity adminBrokerThreadPoolQueueCapacity
        ackThreadPoolQueueCapacity loadBalanceThreadPoolQueueCapacity putThreadPoolQueueCapacity
        clientRequestThreadPoolQueueCapacity defaultThreadPoolQueueCapacity waitTimeMillsInSendQueue
        waitTimeMillsInPullQueue waitTimeMillsInLitePullQueue waitTimeMillsInHeartbeatQueue
        waitTimeMillsInTransactionQueue waitTimeMillsInAckQueue waitTimeMillsInAdminBrokerQueue
        brokerFastFailureEnable useReentrantLockWhenPutMessage topicQueueLockNum
        putMsgIndexHightWater maxWaitTimeMillsInQueue assignmentManageThreadPoolNums
        assignmentThreadPoolQueueCapacity
    """,
    _LAYOUT: """
        storePathCommitLog storePathConsumeQueue storePathIndex storeCheckpoint abortFile
        storePathEpochFile storePathBrokerIdentity storePathDLedgerCommitLog rocketmqHome
        readOnlyCommitLogStorePaths brokerConfigPath
    """,
    _PAGE_CACHE: """
        transientStorePoolEnable transientStorePoolSize fastFailIfNoBufferInStorePool
        commitIntervalCommitLog commitCommitLogLeastPages commitCommitLogThoroughInterval
        warmMapedFileEnable flushLeastPagesWhenWarmMapedFile wakeCommitWhenPutMessage
        wakeFlushWhenPutMessage writeWithoutMmap putConsumeQueueDataByFileChannel
        dataReadAheadEnable mappedFileSwapEnable coldDataFlowControlEnable commitLogSwapMapInterval
        commitLogForceSwapMapInterval commitLogSwapMapReserveFileNum logicQueueSwapMapInterval
        logicQueueForceSwapMapInterval logicQueueSwapMapReserveFileNum searchBcqByCacheEnable
        transferMsgByHeap transferMsgByHeapTimeOut useStoreLock flushIntervalTimer
        bitMapLengthConsumeQueueExt
    """,
    _NETTY: """
        serverWorkerThreads serverCallbackExecutorThreads serverSelectorThreads
        serverOnewaySemaphoreValue serverAsyncSemaphoreValue serverSocketSndBufSize
        serverSocketRcvBufSize serverSocketBacklog serverPooledByteBufAllocatorEnable
        serverNettyWorkerGroupEnable useEpollNativeSelector writeBufferHighWaterMark
        writeBufferLowWaterMark enableShutdownGracefully shutdownWaitTimeSeconds clientWorkerThreads
        clientCallbackExecutorThreads clientOnewaySemaphoreValue clientAsyncSemaphoreValue
        clientSocketSndBufSize clientSocketRcvBufSize clientChannelMaxIdleTimeSeconds
        clientPooledByteBufAllocatorEnable clientCloseSocketIfTimeout connectTimeoutMillis
        channelNotActiveInterval useTLS tlsServerMode
    """,
    _TIMERS: """
        timerPrecisionMs timerFlushIntervalMs timerGetMessageThreadNum timerPutMessageThreadNum
        timerCongestNumEachSlot timerEnableCheckMetrics timerInterceptDelayLevel timerStopEnqueue
        timerStopDequeue timerSkipUnknownError timerWarmEnable timerMetricSmallThreshold
        timerProgressLogIntervalMs timerCheckMetricsWhen timerEnableRetryUntilSuccess
    """,
    _LATER: """
        enableCalcFilterBitMap bitMapLengthConsumeQueueExt
        enableConsumeQueueExt mappedFileSizeConsumeQueueExt expectConsumerNumUseFilter
        maxErrorRateOfBloomFilter filterDataCleanTimeSpan haSendHeartbeatInterval haHousekeepingInterval
        haTransferBatchSize haMasterAddress haSlaveFallbehindMax haMaxGapNotInSync
        haFlowControlEnable maxHaTransferByteInSecond haMaxTimeSlaveNotCatchup totalReplicas
        minInSyncReplicas allAckInSyncStateSet enableAutoInSyncReplicas slaveReadEnable
        syncFromLastFile asyncLearner offsetCheckInSlave disableConsumeIfConsumerReadSlowly
        consumerFallbehindThreshold isolateLogEnable metricsExporterType metricsPromExporterPort
        metricsPromExporterHost messageIndexSafe enableDetailStat maxMsgsNumBatch
        rejectPullConsumerEnable
    """,
    _NONE: """
        fetchNamesrvAddrByAddressServer fetchNameSrvAddrByDnsLookup rmqAddressServerDomain
        rmqAddressServerSubGroup compressedRegister brokerNotActiveTimeoutMillis
        syncBrokerMemberGroupPeriod compatibleWithOldNameSrv sendHeartbeatTimeoutMillis
        brokerHeartbeatInterval enableNetWorkFlowControl flushConsumerOffsetHistoryInterval
        highSpeedMode commercialEnable commercialTimerCount commercialTransCount commercialBigCount
        commercialBaseCount commercialSizePerMsg accountStatsEnable accountStatsPrintZeroValues
        regionId autoDeleteUnusedStats storeReplyMessageEnable autoMessageVersionOnTopicLen
        debugLockEnable diskFallRecorded cleanExpiredRequestInterval maxDelayTime deleteFileBatchMax
        mapperFileSizeBatchConsumeQueue travelCqFileNumWhenGetMessage maxFilterMessageSize
        enableBatchPush enableLmq enableMultiDispatch maxLmqConsumeQueueNum storeType
        configManagerVersion enableCompaction maxOffsetMapSize compactionThreadNum
        compactionScheduleInternal compactionMappedFileSize compactionCqMappedFileSize
        enableSingleTopicRegister enableSplitRegistration splitRegistrationSize enablePopLog
        enablePopBufferMerge popCkStayBufferTime popPollingSize popPollingMapSize maxPopPollingSize
        reviveQueueNum reviveInterval popConsumeFSServiceInit serverLoadBalancerEnable
        defaultMessageRequestMode defaultPopShareQueueNum validateSystemTopicWhenUpdateTopic
        transactionCheckMaxTimeInMs transactionOpMsgMaxSize transactionOpBatchInterval
        enableScheduleMessageStats enableScheduleAsyncDeliver scheduleAsyncDeliverMaxPendingLimit
        scheduleAsyncDeliverMaxResendNum2Blocked flushDelayOffsetIntervalForce
        brokerTopicFilterEnable msgTraceTopicNameEnable productEnvName clusterTest
        defaultThreadPoolQueueCapacity clientRequestThreadPoolNums unRegisterBrokerQueueCapacity
        supportActingMaster notifyMinBrokerIdChanged enableControllerInNamesrv
        checkTransactionMessageEnable dLegerGroup dLegerPeers dLegerSelfId preferredLeader
        isEnableBatchPush forceVerifyPropCRC recoverConcurrently longMessageEnable
        enableRemoteEscape enableSkipLongAwaitingAck maxStatsIdleTimeInMinutes validateSystemTopic
    """,
}

IGNORED: dict[str, str] = {key: reason for reason, keys in _REASONS.items() for key in keys.split()}
"""RocketMQ key -> why shmq ignores it."""
